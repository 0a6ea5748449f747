"""What the tests of the replay share: recordings and their requests, workloads made by hand, the fake kernel."""

import functools
import importlib.util
import itertools
import json
from pathlib import Path

import pytest

from swiommu.replay import Area, OpCode, Request, RequestKind, Served, Workload, workload_of
from swiommu.trace import Sidecar, read_trace

PAGE = 4096
BIG = 700_000  # compressed bytes of a recording whose replay takes more than a moment here


# -- recordings -------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _recording(path):
    trace = read_trace(path)
    return trace, workload_of(trace)


@pytest.fixture(scope="session")
def recording():
    """Path -> (trace, workload); the last two are kept."""
    return _recording


@pytest.fixture(scope="session")
def facts_of():
    """Path of a recording -> its sidecar's JSON."""
    return lambda path: json.loads(_beside(path).read_text())


def _beside(path):
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".trace") + ".json")


def pytest_generate_tests(metafunc):
    """``quick_trace_path``: every recording, the big ones marked slow; ``strict_trace_path``: of these, mode strict."""
    folder = metafunc.config.getoption("--trace-dir")
    paths = sorted([*folder.rglob("*.trace.gz"), *folder.rglob("*.trace")])
    chosen = {
        "quick_trace_path": lambda: paths,
        "strict_trace_path": lambda: [
            path
            for path in paths
            if _beside(path).exists() and json.loads(_beside(path).read_text())["iommu"]["mode"] == "strict"
        ],
    }
    for name in chosen.keys() & set(metafunc.fixturenames):
        params = [
            pytest.param(path, marks=[pytest.mark.slow] * (path.stat().st_size > BIG), id=path.name.removesuffix(".gz"))
            for path in chosen[name]()
        ]
        metafunc.parametrize(name, params)


@pytest.fixture(scope="session")
def trace_of(tmp_path_factory):
    """ftrace text (and a sidecar's JSON) -> trace."""
    folder, number = tmp_path_factory.mktemp("traces"), itertools.count()

    def read(text, sidecar=None):
        path = Path(folder, f"t{next(number)}.trace")
        path.write_text(text)
        if sidecar is not None:
            path.with_suffix(".json").write_text(json.dumps({"name": path.stem, "kernel": "6.12.107"} | sidecar))
        try:
            return read_trace(path)
        finally:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)

    return read


@pytest.fixture(scope="session")
def sidecar_of():
    """A `Sidecar` of the recorded machine's shape with other facts."""
    return lambda **facts: Sidecar(**{"path": "", "name": "t", "kernel": "6.12.107", "version": (6, 12)} | facts)


# -- workloads made by hand -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_request():
    def make(index, kind="ALLOC", size=PAGE, **facts):
        facts = {"device": "cam", "time": 0, "line": index + 1, "mask": 0xFFFF_FFFF} | facts
        facts = {"translated": False, "censored": False, "gfp": "GFP_KERNEL", "group": facts["device"]} | facts
        if kind == "MAP" and "pieces" not in facts:
            facts["pieces"] = ((0x8000_0000 + index * 0x10_0000, size),)
        return Request(index=index, kind=RequestKind(kind), size=size, **facts)

    return make


@pytest.fixture(scope="session")
def make_workload():
    """Requests and operations (code, index, time) -> a workload; the area is 1024 pages at 1 GiB unless told."""

    def make(requests, ops, *, area=Area(0x40000, 1024, ()), occupancies=(), served=None, **facts):  # noqa: B008
        times = [time for _, _, time in ops] or [0]
        facts = {"start_time": min(times), "stop_time": max(times), "profile": "6.12"} | facts
        facts = {"mode": "direct", "has_dma_events": True, "page_size": PAGE, "system_map": None} | facts
        served = served or [Served() for _ in requests]
        ops = [(OpCode(code), index, time) for code, index, time in ops]
        return Workload(
            name="made", requests=requests, served=served, ops=ops, occupancies=occupancies, area=area, **facts
        )

    return make


# -- the fake kernel --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fake_kernel():
    """The class `FakeKernel`; test folders are no packages, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("fake_kernel", Path(__file__).with_name("fake_kernel.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeKernel
