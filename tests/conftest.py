"""Options, hypothesis profile and the recorded data that tests run over.

A test that names one of these fixtures runs once for every file of the data folder:

    trace_path        every recording
    quick_trace_path  every recording, the big ones marked slow
    strict_trace_path recordings whose mode is strict
    cma_trace_path    recordings whose sidecar describes a CMA area and what was in use at the start
    best_fit_oracle   operation sequences of the best-fit allocator of 2010
    bitmap_oracle     operation sequences of the mainline bitmap allocator
    map_oracle        maps, lookups in them and region lists of 2010
    core_oracle       operation sequences of the calls of 2010 over several regions

``--trace-dir`` and ``--oracle-dir`` take other folders of the same format; files are found in subfolders too, and
oracles know their kind by their first line. ``--slow`` adds the tests marked slow.
"""

import gzip
import itertools
import json
from functools import cache, lru_cache
from pathlib import Path

import pytest
from hypothesis import settings

from swiommu.requests import workload_of
from swiommu.trace import Sidecar, read_trace

DATA = Path(__file__).parent / "data"
BIG = 700_000  # compressed bytes of a recording whose replay takes more than a moment here

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("ci")


def pytest_addoption(parser):
    group = parser.getgroup("swiommu")
    group.addoption("--trace-dir", type=Path, default=DATA / "traces", help="folder of recordings with sidecars")
    group.addoption("--oracle-dir", type=Path, default=DATA / "oracles", help="folder of recorded sequences (JSONL)")
    group.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config):
    # A misspelt folder would let every test over recordings pass by not running.
    for option, find in (("--trace-dir", trace_files), ("--oracle-dir", oracle_files)):
        folder = config.getoption(option)
        if not find(folder):
            raise pytest.UsageError(f"{option} {folder}: nothing of ours is in there")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@cache
def trace_files(folder):
    return sorted([*folder.rglob("*.trace.gz"), *folder.rglob("*.trace")])


def _beside(trace):
    return trace.with_name(trace.name.removesuffix(".gz").removesuffix(".trace") + ".json")


def is_strict(trace):
    sidecar = _beside(trace)
    return sidecar.exists() and json.loads(sidecar.read_text())["iommu"]["mode"] == "strict"


def has_cma_extents(trace):
    sidecar = _beside(trace)
    area = json.loads(sidecar.read_text()).get("cma_area") if sidecar.exists() else None
    return bool(area) and area.get("in_use_before_trace_extents_offset_count") is not None


def open_text(path):
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


@cache
def oracle_files(folder):
    """Paths by kind, the ``allocator`` of a file's first line."""
    kinds = {}
    for path in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")]):
        with open_text(path) as file:
            kinds.setdefault(json.loads(file.readline())["allocator"], []).append(path)
    return kinds


def pytest_generate_tests(metafunc):
    traces = trace_files(metafunc.config.getoption("--trace-dir"))
    oracles = oracle_files(metafunc.config.getoption("--oracle-dir"))
    files = {
        "trace_path": lambda: traces,
        "cma_trace_path": lambda: [path for path in traces if has_cma_extents(path)],
        "best_fit_oracle": lambda: oracles.get("cma-best-fit", []),
        "bitmap_oracle": lambda: oracles.get("cma-bitmap", []),
        "map_oracle": lambda: oracles.get("cma-map", []),
        "core_oracle": lambda: oracles.get("cma-core", []),
    }
    for name in files.keys() & set(metafunc.fixturenames):
        # Module scope: the tests of a module over one file run in a row, so that a module may keep what it read.
        metafunc.parametrize(name, files[name](), ids=lambda path: path.name.removesuffix(".gz"), scope="module")
    quick = {
        "quick_trace_path": lambda: traces,
        "strict_trace_path": lambda: [path for path in traces if is_strict(path)],
    }
    for name in quick.keys() & set(metafunc.fixturenames):
        params = [
            pytest.param(path, marks=[pytest.mark.slow] * (path.stat().st_size > BIG), id=path.name.removesuffix(".gz"))
            for path in quick[name]()
        ]
        metafunc.parametrize(name, params)


@pytest.fixture(scope="session")
def data_dir():
    return DATA


# -- recordings, and texts like them


@lru_cache(maxsize=2)
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
