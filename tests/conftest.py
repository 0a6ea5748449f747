"""Options, hypothesis profile and the recorded data that tests run over.

A test that names one of these fixtures runs once for every file of the data folder:

    trace_path        every recording
    quick_trace_path  every recording; of one that is not small the beginning, and with --slow all of it
    strict_trace_path the same for the recordings whose mode is strict
    cma_trace_path    recordings whose sidecar describes a CMA area and what was in use at the start
    best_fit_oracle   operation sequences of the best-fit allocator of 2010
    bitmap_oracle     operation sequences of the mainline bitmap allocator
    map_oracle        maps, lookups in them and region lists of 2010
    core_oracle       operation sequences of the calls of 2010 over several regions

``--trace-dir`` and ``--oracle-dir`` take other folders of the same format; files are found in subfolders too, and
oracles know their kind by their first line. ``--slow`` adds the tests marked slow, and draws ten times as many examples
where a test does not say how many.

Tests over whole recordings run first, those over one recording in a row: each is read once, and what takes longest
does not come last.
"""

import gzip
import itertools
import json
import os
import subprocess
import sys
from contextlib import ExitStack, chdir
from functools import cache, lru_cache
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings

from swiommu.cli import main
from swiommu.requests import workload_of
from swiommu.trace import Sidecar, read_trace

DATA = Path(__file__).parent / "data"
SMALL = 50_000  # compressed bytes of a recording that is replayed in a moment
BEGINNING = 3000  # lines of one that is not

WHOLE = ("trace_path", "cma_trace_path")

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("deep", settings.get_profile("ci"), max_examples=1000)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.register_profile("mutation", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("SWIOMMU_PROFILE", "ci"))


def pytest_addoption(parser):
    group = parser.getgroup("swiommu")
    group.addoption("--trace-dir", type=Path, default=DATA / "traces", help="folder of recordings with sidecars")
    group.addoption("--oracle-dir", type=Path, default=DATA / "oracles", help="folder of recorded sequences (JSONL)")
    group.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config):
    if config.getoption("--slow"):
        settings.load_profile("deep")
    # A misspelt folder would let every test over recordings pass by not running.
    for option, find in (("--trace-dir", trace_files), ("--oracle-dir", oracle_files)):
        folder = config.getoption(option)
        if not find(folder):
            raise pytest.UsageError(f"{option} {folder}: nothing of ours is in there")


def pytest_collection_modifyitems(config, items):
    items.sort(key=recording_first)
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def recording_first(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    path = next((params[name] for name in WHOLE if name in params), None)
    return (1, "") if path is None else (0, path.name)


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
        metafunc.parametrize(name, [param for path in quick[name]() for param in quick_forms(path)], indirect=True)


def quick_forms(path):
    """The path and how many lines of it are read, None for all of them."""
    name = path.name.removesuffix(".gz")
    if path.stat().st_size <= SMALL:
        return [pytest.param((path, None), id=name)]
    begin = pytest.param((path, BEGINNING), id=f"{name}-beginning")
    return [begin, pytest.param((path, None), id=name, marks=pytest.mark.slow)]


@pytest.fixture(scope="session")
def data_dir():
    return DATA


# -- recordings, and texts like them


@cache
def _beginning(path, lines, folder):
    """A recording of the first lines of another, with the same sidecar."""
    with open_text(path) as file:
        text = "".join(itertools.islice(file, lines))
    cut = folder / path.name.removesuffix(".gz")
    cut.write_text(text)
    if _beside(path).exists():
        _beside(cut).write_text(_beside(path).read_text())
    return cut


@pytest.fixture(scope="session")
def beginnings(tmp_path_factory):
    return tmp_path_factory.mktemp("beginnings")


@pytest.fixture
def quick_trace_path(request, beginnings):
    path, lines = request.param
    return path if lines is None else _beginning(path, lines, beginnings)


strict_trace_path = quick_trace_path


@lru_cache(maxsize=4)
def _recording(path):
    trace = read_trace(path)
    return trace, workload_of(trace)


@pytest.fixture(scope="session")
def recording():
    """Path -> (trace, workload); the last four are kept, so nobody changes them."""
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


# -- the command line, as a shell runs it

ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
ENVIRONMENT |= {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}


def in_a_process(*arguments, cwd, env=ENVIRONMENT, **options):
    options = {"capture_output": True, "timeout": 60} | options
    return subprocess.run([sys.executable, "-m", "swiommu", *arguments], check=False, cwd=cwd, env=env, **options)


def in_this_process(*arguments, cwd, env=ENVIRONMENT, input=b"", timeout=None):  # noqa: A002 - as subprocess has it
    """The same, without the third of a second that an interpreter and its imports take; no pipes, but real files."""
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile()) for _ in range(3)]
        streams = [stack.enter_context(TextIOWrapper(file, env["PYTHONIOENCODING"])) for file in files]
        stdin, stdout, stderr = streams
        stdin.buffer.write(input)
        stdin.buffer.seek(0)
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            stack.enter_context(patch(f"sys.{name}", stream))
        stack.enter_context(patch("sys.argv", ["swiommu", *arguments]))
        stack.enter_context(patch.dict("os.environ", env, clear=True))
        stack.enter_context(chdir(cwd))
        with pytest.raises(SystemExit) as ended:
            main()
        for stream in (stdout, stderr):
            stream.flush()
            stream.buffer.seek(0)
        return subprocess.CompletedProcess(arguments, ended.value.code, stdout.buffer.read(), stderr.buffer.read())


@pytest.fixture
def swiommu(tmp_path, request):
    """Run `swiommu ARGUMENTS` in an empty directory; the finished process, its output in bytes.

    It is a process of its own where ``process`` or an option of `subprocess.run` asks for that, and with ``--slow``.
    """
    slow = request.config.getoption("--slow")

    def swiommu(*arguments, process=slow, cwd=tmp_path, **options):
        own = process or options.keys() - {"env", "input", "timeout"}
        run = in_a_process if own else in_this_process
        return run(*map(os.fspath, arguments), cwd=cwd, **options)

    return swiommu
