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

ROOT = Path(__file__).parents[2]
CAMERA = "arm64-6.12-cam-cma64M-s81"
BUNDLED = "arm64-6.12-cam-cma64M-s81 and arm64-6.12-smmu-camnvme-cma128M-s89"
DESIGNS = (
    "as-recorded, passthrough, swiotlb, swiotlb-natural, carveout-best-fit, cma-bitmap, software-iommu, iommu-strict, "
    "iommu-lazy, shim-over-iommu, cma-lending, gcma"
)
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
    run = swiommu("verify", path, cwd=data_dir / "traces")
    sentence = "the trace holds none of the decisions that can be checked: cma, iova, swiotlb, prot, invalidation, pte"
    assert (run.returncode, run.stderr) == (0, b"")
    assert " ".join(run.stdout.decode().splitlines()[1:]) == sentence


def test_unknown_design_with_a_hint(swiommu):
    refused(
        swiommu("compare", "--design", "cma-bitmp"),
        f"no design is named 'cma-bitmp': did you mean 'cma-bitmap'? there are {DESIGNS}",
    )


def test_unknown_design_is_told_before_anything_is_read(swiommu):
    refused(swiommu("compare", "--design", "zzz", "no-such-file"), f"no design is named 'zzz': there are {DESIGNS}")


def test_sidecar_that_is_not_json(swiommu, tmp_path, recording):
    shutil.copy(recording, tmp_path / "mine.trace.gz")
    (tmp_path / "mine.json").write_text("not json")
    refused(swiommu("compare", "mine.trace.gz"), "mine.json: is not JSON (Expecting value)")


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
