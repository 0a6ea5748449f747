"""Exit statuses and whole sentences of the command line, as a shell sees them: never a traceback."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from swiommu.cli.main import main
from swiommu.errors import NoMemory

ROOT = Path(__file__).parents[2]
CAMERA = "arm64-6.12-cam-cma64M-s81"
BUNDLED = "arm64-6.12-cam-cma64M-s81 and arm64-6.12-smmu-camnvme-cma128M-s89"
DESIGNS = (
    "as-recorded, passthrough, swiotlb, swiotlb-natural, carveout-best-fit, cma-bitmap, software-iommu, iommu-strict, "
    "iommu-lazy, shim-over-iommu, cma-lending, gcma"
)
AREA_IN_SIDECAR = "name the area in the sidecar: cma_area"
COMMAND = [sys.executable, "-m", "swiommu"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def recording(data_dir):
    return data_dir / "traces" / f"{CAMERA}.trace.gz"


def refused(run, sentence, status=3):
    assert (run.returncode, run.stdout, run.stderr.decode()) == (status, b"", f"swiommu: {sentence}\n")


# -- bad input: 3 ----------------------------------------------------------------------------------


def test_empty_file(swiommu, tmp_path):
    (tmp_path / "empty").touch()
    refused(swiommu("compare", "empty"), "empty: is empty, not a trace")


def test_directory(swiommu):
    refused(swiommu("verify", "."), ".: is a directory, not a trace")


def test_missing_file_and_wrong_bundled_name(swiommu):
    sentence = f"arm64-6.12-cam: no such file, and no bundled recording of that name (there are {BUNDLED})"
    refused(swiommu("compare", "arm64-6.12-cam"), sentence)


def test_binary_file(swiommu, tmp_path):
    (tmp_path / "core").write_bytes(bytes(range(256)) * 100)
    refused(swiommu("verify", "core"), "core: is a binary file, not an ftrace text")


def test_truncated_gzip_says_what_was_readable(swiommu, tmp_path, recording):
    (tmp_path / "cut.gz").write_bytes(recording.read_bytes()[:20_000])
    run = swiommu("compare", "cut.gz")
    refused(run, "cut.gz: is a truncated gzip file; 1794 lines were readable before the cut")


def test_trace_of_another_kind(swiommu, tmp_path):
    (tmp_path / "log").write_text("[    0.000000] Linux version 6.12\n")
    run = swiommu("compare", "log")
    assert (run.returncode, run.stdout, run.stderr.count(b"\n")) == (3, b"", 1)
    assert run.stderr.startswith(b"swiommu: log: not an ftrace text: ")
    assert run.stderr.endswith(b"; it looks like a kernel log (dmesg)\n")


# Root may read everything but what nobody may.
WRITE_ONLY = Path("/proc/sys/vm/compact_memory")


@pytest.mark.skipif(os.geteuid() == 0 and not WRITE_ONLY.exists(), reason="root may read everything")
def test_file_that_may_not_be_read(swiommu, tmp_path):
    secret = WRITE_ONLY
    if os.geteuid():
        secret = tmp_path / "secret"
        secret.write_text("x")
        secret.chmod(0)
    refused(swiommu("verify", str(secret)), f"{secret}: may not be read (permission denied)")


def test_nothing_to_verify(swiommu, data_dir):
    path = "x86-6.12-pt-mixed-s11.trace.gz"
    refused(
        swiommu("verify", path, cwd=data_dir / "traces"),
        f"{path}: holds no decision that can be checked: looked for cma_alloc_start with cma_alloc_finish (cma), the "
        "probes iova_alloc and iova_alloc_ret (iova), swiotlb_bounced (swiotlb), the probes iommu_map and iommu_map_sg "
        "(prot), qi_submit of unmaps, or the log of an emulated IOMMU (invalidation), the log of an emulated IOMMU "
        "(pte); found dma_map_page (17,714), dma_unmap_page (17,460), dma_map_sg (478), dma_unmap_sg (478), qi_submit "
        "(98), dma_alloc (52), 4 other events",
    )


def test_nothing_to_compare(swiommu, tmp_path):
    """Ends without a begin are no requests, nor is what no request asked for; a kernel's older text can't be read."""
    head = "            init-1       [000] .....     0.180000: "
    lines = [
        "cma_alloc_start: name=reserved count=64 align=6",
        "cma_alloc_finish: name=reserved pfn=0xb9a00 page=00000000e0ff8e15 count=64 align=6",
        "cma_release: name=reserved pfn=0xb9a00 page=00000000e0ff8e15 count=64",
        "cma_release: name=reserved pfn=0xb9a40 page=00000000e0ff8e15 count=64",
        "sched_switch: prev_comm=init",
    ]
    (tmp_path / "old.trace").write_text("".join(f"{head}{line}\n" for line in lines))
    for memory in ("equal", "machine"):
        refused(
            swiommu("compare", "--memory", memory, "old.trace"),
            "old.trace: holds no request: looked for dma_alloc, dma_map_page, dma_map_phys, dma_map_resource, "
            "dma_map_sg, VFIO marks of user space and, where no dma event was recorded, cma_alloc_finish and map; "
            "found cma_release (2), cma_alloc_start (1), 1 line of events that are not used, 1 line that can't be read "
            "(line 2: cma_alloc_finish: the text is cut, or no known kernel prints it so). Record the driver's calls "
            "with: trace-cmd record -e dma -e iommu -e cma -e swiotlb (kernels from 6.12 on have dma events)",
        )


def test_unknown_design_with_a_hint(swiommu):
    refused(swiommu("compare", "--design", "cma-bitmp"), "no design is named 'cma-bitmp'; did you mean 'cma-bitmap'?")


def test_unknown_design_is_told_before_anything_is_read(swiommu):
    refused(swiommu("compare", "--design", "zzz", "no-such-file"), f"no design is named 'zzz'; there are {DESIGNS}")


def test_sidecar_that_is_not_json(swiommu, tmp_path, recording):
    shutil.copy(recording, tmp_path / "mine.trace.gz")
    (tmp_path / "mine.json").write_text("not json")
    refused(swiommu("compare", "mine.trace.gz"), "mine.json:1: is not JSON: Expecting value (column 1)")


def test_sidecar_of_another_trace(swiommu, tmp_path, recording):
    shutil.copy(recording, tmp_path / "mine.trace.gz")
    shutil.copy(recording.with_name(f"{CAMERA}.json"), tmp_path / "mine.json")
    sentence = f"mine.json: the sidecar is of '{CAMERA}', not of 'mine.trace.gz' beside it: rename or remove it"
    refused(swiommu("compare", "mine.trace.gz"), sentence)


# -- usage: 2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "--nosuch"),
        ("verify", "a", "b"),
        ("compare", "a", "--workload", "nic"),
        ("compare", "--align", "99"),
        ("compare", "--memory", "fast"),
        ("compare", ""),  # an unset variable in a script; it is not the current directory
        ("compar",),
        (),
    ],
)
def test_usage(swiommu, arguments):
    run = swiommu(*arguments)
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr.startswith(b"Usage: ")
    assert b"Traceback" not in run.stderr


def test_usage_errors_name_the_mistake_without_driving_the_terminal(swiommu):
    run = swiommu("verify", "a", "\x1b[31mb\x07")
    assert run.stderr.decode().splitlines()[-1] == "Error: Got unexpected extra argument (b?)"
    assert all(char.isprintable() for char in run.stderr.decode().replace("\n", ""))


# -- answered: 0, findings: 1 ----------------------------------------------------------------------


def test_standard_input_and_findings(swiommu, tmp_path, recording):
    text = gzip.decompress(recording.read_bytes())
    run = swiommu("verify", "-", input=text)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.decode().splitlines() == [
        "standard input",
        "decisions  total  matched  mismatched  undetermined  rate",
        "cma            0        0           0           740     -",
        "undetermined: 740 cma: no sidecar tells where the area lies",
        f"to determine cma: record from before the first cma_alloc on, lose no event, and {AREA_IN_SIDECAR}",
        "with base_pfn, total_pages and in_use_before_trace_extents_offset_count",
    ]
    pfn = text.partition(b"cma_alloc_finish: name=reserved pfn=")[2].split()[0]
    (tmp_path / f"{CAMERA}.trace").write_bytes(text.replace(pfn, b"0xb9b01", 1))
    shutil.copy(recording.with_name(f"{CAMERA}.json"), tmp_path)
    run = swiommu("verify", f"{CAMERA}.trace")
    assert (run.returncode, run.stderr) == (1, b"")
    assert run.stdout.decode().splitlines()[1:] == [
        "decisions  total  matched  mismatched  undetermined     rate",
        "cma          740      739           1             0  99.86 %",
        "line 17: alloc: predicted pfn 0xb9b00, recorded pfn 0xb9b01",
    ]


def test_bundled_name_from_anywhere(swiommu):
    run = swiommu("verify", CAMERA)
    assert (run.returncode, run.stdout.splitlines()[0]) == (0, CAMERA.encode())


def test_version_and_help(swiommu):
    assert swiommu("--version").stdout.startswith(b"swiommu 0.")
    for arguments in (("--help",), ("compare", "--help"), ("verify", "-h")):
        run = swiommu(*arguments)
        assert (run.returncode, run.stderr) == (0, b"")
        assert run.stdout.startswith(b"Usage: ")


# -- standard output that takes nothing ------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("verify",), ("verify", "--json"), ("--help",)])
def test_reader_that_has_gone(arguments, tmp_path):
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, env=ENVIRONMENT, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (run.returncode, run.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("verify",), ("verify", "--json"), ("--help",)])
def test_full_disk(arguments, tmp_path):
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert run.returncode == 3
    assert run.stderr.count(b"\n") == 1
    assert run.stderr.endswith(b"No space left on device\n")


def test_closed_standard_input(tmp_path):
    run = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m swiommu verify - <&-', sys.executable],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    refused(run, "standard input: is closed")


def test_closed_standard_output(tmp_path):
    run = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m swiommu verify >&-', sys.executable],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


@pytest.mark.parametrize(("trace", "status"), [(CAMERA, 0), ("nowhere", 3)])
def test_closed_standard_error(tmp_path, trace, status):
    run = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m swiommu verify "$1" 2>&-', sys.executable, trace],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr, bool(run.stdout)) == (status, b"", status == 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("arguments", "status"), [(("compare", "nosuch"), 3), (("compare", "--nosuch"), 2)])
def test_standard_error_on_a_full_disk(arguments, status, tmp_path):
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, env=ENVIRONMENT, stderr=full, check=False)
    assert run.returncode == status


# -- an unexpected error: 70 -----------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch, capsys):
    """`swiommu ARGUMENTS` where something that must not happen happens while a trace is verified."""

    def verify(_):
        raise KeyError("\x1b[31mno\nsuch thing")

    def run(*arguments):
        monkeypatch.setattr("swiommu.cli.verify.verify", verify)
        monkeypatch.setattr("sys.argv", ["swiommu", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, *capsys.readouterr()

    return run


def internal(line):
    return (
        "swiommu: internal error: KeyError: '\\x1b[31mno\\nsuch thing' (in verify, test_exit.py:"
        f"{line}), a mistake in swiommu: please report it to its authors with the command and its input; swiommu "
        "--debug shows the traceback"
    )


def test_an_unexpected_error_is_one_sentence(broken):
    code, out, err = broken("verify")
    line = int(err.partition("test_exit.py:")[2].partition(")")[0])
    assert (code, out, err) == (70, "", f"{internal(line)}\n")


def test_debug_shows_the_traceback(broken):
    code, out, err = broken("--debug", "verify")
    lines = err.splitlines()
    line = int(lines[-1].partition("test_exit.py:")[2].partition(")")[0])
    assert (code, out, lines[0], lines[-1]) == (70, "", "Traceback (most recent call last):", internal(line))
    assert all(char.isprintable() for char in err.replace("\n", ""))


def test_an_error_of_the_models_that_is_no_fault_of_the_input_is_unexpected(monkeypatch, capsys):
    def verify(_):
        raise NoMemory("no hole of 8192 bytes")

    monkeypatch.setattr("swiommu.cli.verify.verify", verify)
    monkeypatch.setattr("sys.argv", ["swiommu", "verify"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 70
    assert capsys.readouterr().err.startswith("swiommu: internal error: NoMemory: no hole of 8192 bytes (in verify, ")


# -- interruption ----------------------------------------------------------------------------------


def test_control_c_gives_one_line_and_130(tmp_path):
    fifo = tmp_path / "slow.trace"
    os.mkfifo(fifo)
    # A shell that starts the tests in the background lets them, and all they start, ignore the signal.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [*COMMAND, "compare", str(fifo)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=ENVIRONMENT, preexec_fn=heed, **pipes)  # noqa: PLW1509 - no thread is here
    with fifo.open("wb") as writer:  # opens when the command reads
        writer.write(b"# tracer: nop\n")
        writer.flush()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"swiommu: interrupted\n")


KILL = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, {heed})
"""


def interrupted_at(name, tmp_path, heed="signal.default_int_handler"):
    """`swiommu verify`, interrupted at the import of a module."""
    (tmp_path / "sitecustomize.py").write_text(KILL.format(name=name, heed=heed))
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    return subprocess.run([*COMMAND, "verify"], env=environment, capture_output=True, check=False)


@pytest.mark.parametrize(
    "name", ["swiommu.cli.main", "click", "swiommu.cli.verify", "swiommu.trace.table", "rich.console"]
)
def test_control_c_while_modules_are_imported(name, tmp_path):
    run = interrupted_at(name, tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (130, b"", b"swiommu: interrupted\n")


def test_an_ignored_interrupt_stays_ignored(tmp_path):
    run = interrupted_at("click", tmp_path, heed="signal.SIG_IGN")
    assert (run.returncode, run.stderr) == (0, b"")
