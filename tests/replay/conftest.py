"""What the tests of the replay share: recordings and their requests, workloads made by hand, the fake kernel."""

import functools
import importlib.util
import itertools
import json
import random
from pathlib import Path

import pytest

from swiommu.replay import Area, Occupancy, OpCode, Request, RequestKind, Served, Workload, workload_of
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


# -- random workloads --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def random_workload(make_request, make_workload):
    """A seed and a number of steps -> requests that come and go, some censored, some with small masks."""

    def make(seed, steps, *, base=0x4_0000, pages=512, users=False):
        randomly = random.Random(seed)
        area = Area(base, pages, randomly.choice([(), ((0, 16),), ((8, 3), (100, 40))]))
        requests, served, ops, live, occupancies, background = [], [], [], [], [], []
        free_extents = list(area.start_extents)
        time = 0
        for _ in range(steps):
            time += randomly.choice([0, 1, 5, 100, 100, -3])
            what = randomly.random()
            if what < 0.35 and live:
                ops.append((OpCode.END, live.pop(randomly.randrange(len(live))), time))
            elif what < 0.4:
                occupancies.append(Occupancy(0, randomly.choice([1, 5, 64]), randomly.randrange(4)))
                background.append(len(occupancies) - 1)
                ops.append((OpCode.OCCUPY, background[-1], time))
            elif what < 0.44 and background:
                ops.append((OpCode.VACATE, background.pop(), time))
            elif what < 0.46 and free_extents:
                offset, count = free_extents.pop()
                occupancies.append(Occupancy(base + offset, count, 0, was_start_extent=True))
                ops.append((OpCode.VACATE, len(occupancies) - 1, time))
            else:
                requests.append(random_request(randomly, make_request, len(requests), time))
                served.append(random_served(randomly, base, pages))
                ops.append((OpCode.BEGIN, requests[-1].index, time))
                if not requests[-1].censored:
                    live.append(requests[-1].index)
        return make_workload(requests, ops, area=area, occupancies=occupancies, served=served)

    return make


def random_request(randomly, make_request, index, time):
    kind = randomly.choice(["ALLOC", "ALLOC", "ALLOC", "MAP"])
    pages = randomly.choice([1, 1, 2, 3, 7, 8, 30, 64, 200, 1500])
    device = randomly.choice(["cam", "eth", "nvme"])
    facts = {
        "device": device,
        "group": "one" if device == "nvme" else device,
        "time": time,
        "mask": randomly.choice([0xFFFF_FFFF, 0xFFFF_FFFF, 0x4008_0FFF, 0x3FFF_FFFF]),
        "censored": randomly.random() < 0.2,
        "gfp": randomly.choice(["GFP_KERNEL", "GFP_ATOMIC"]),
        "translated": device == "eth",
        "direction": randomly.choice(["TO_DEVICE", "FROM_DEVICE"]),
    }
    if kind == "MAP":
        first = 0x2000_0000 + randomly.randrange(64) * PAGE
        pieces = [(first + n * 0x40_0000, randomly.choice([PAGE, 3 * PAGE])) for n in range(randomly.randrange(1, 4))]
        return make_request(index, "MAP", sum(size for _, size in pieces), pieces=tuple(pieces), **facts)
    return make_request(index, "ALLOC", pages * PAGE - randomly.choice([0, 0, 100]), **facts)


def random_served(randomly, base, pages):
    return Served(busy_pfns=tuple(base + randomly.randrange(pages) for _ in range(randomly.choice([0, 0, 0, 2]))))


# -- the fake kernel --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fake_kernel():
    """The class `FakeKernel`; test folders are no packages, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("fake_kernel", Path(__file__).with_name("fake_kernel.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeKernel
