"""What is no trace: one sentence each, compared whole."""

import gzip
import io
import os
import re
import sys

import pytest

from swiommu.errors import InputError
from swiommu.trace import bundled_path, open_bundled, read_trace

LINE = "           v4l-185     [000] .....     8.000001: "
RELEASE = f"{LINE}cma_release: name=reserved pfn=0xb6000 page=00000000ef80c34c count=1013\n"
RECORD = "Record with: trace-cmd record -e dma -e iommu -e cma -e swiotlb"
BUNDLED = "arm64-6.12-cam-cma64M-s81 and arm64-6.12-smmu-camnvme-cma128M-s89"


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_trace(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


CONTENTS = [
    (b"", "is empty, not a trace"),
    (gzip.compress(b"", mtime=0), "is empty, not a trace"),
    (b"\0\1\2" * 100, "is a binary file, not an ftrace text"),
    (b"\x7fELF\2\1\1\0\0\0", "is a binary file, not an ftrace text"),
    (gzip.compress(b"\0" * 100, mtime=0), "is a binary file, not an ftrace text"),
    (
        b"\x17\x08\x44tracing6\0\0\1",
        "is a trace-cmd recording (trace.dat): run `trace-cmd report` on it and read its output",
    ),
    (
        b"PERFILE2h\0\0\0",
        "is a perf.data file: swiommu reads ftrace text, so record with trace-cmd or /sys/kernel/tracing",
    ),
    (b"\xfd7zXZ\0\0", "is compressed with xz: decompress it first, or use gzip"),
    (b"\x28\xb5\x2f\xfd\0", "is compressed with zstd: decompress it first, or use gzip"),
    (b"BZh91AY", "is compressed with bzip2: decompress it first, or use gzip"),
    (b"PK\x03\x04\0", "is a zip archive: unpack it first"),
    (
        b'{"traceEvents": [\n]}\n',
        "not an ftrace text: no line of 2 has the shape of an event; it looks like JSON",
    ),
    (
        b"[    0.000000] Linux version 6.12\n[    0.1] x\n",
        "not an ftrace text: no line of 2 has the shape of an event; it looks like a kernel log (dmesg)",
    ),
    (
        b"swapper     0 [000]  1234.567890:      iommu:map: IOMMU: iova=0x1 - 0x2\n",
        "not an ftrace text: no line of 1 has the shape of an event; it looks like `perf script` output",
    ),
    (
        b"vtd_dmar_translate dev 00:01.00 iova 0x0\n",
        "not an ftrace text: no line of 1 has the shape of an event; it looks like an IOMMU emulator's log",
    ),
    (
        b"<!DOCTYPE html>\n<html>\n",
        "not an ftrace text: no line of 2 has the shape of an event; it looks like an HTML page",
    ),
    (
        b"dear diary\n",
        "not an ftrace text: no line of 1 has the shape of an event; it looks like a text of another kind",
    ),
    (b"# tracer: nop\n#\n", f"a trace without events. {RECORD}"),
    (b"\n", f"a trace without events. {RECORD}"),
    (b"CPU:0 [LOST 3 EVENTS]\n", f"a trace without events. {RECORD}"),
    (
        (f"{LINE}sched_switch: x\n" * 2 + f"{LINE}irq_handler_entry: irq=1\n").encode(),
        (
            "an ftrace text, but without any event that swiommu uses; "
            f"it holds sched_switch (2), irq_handler_entry (1). {RECORD}"
        ),
    ),
]


@pytest.mark.parametrize(("content", "reason"), CONTENTS, ids=[reason[:40] for _, reason in CONTENTS])
def test_contents_that_are_no_trace(content, reason, tmp_path):
    path = tmp_path / "it"
    path.write_bytes(content)
    assert refusal(path) == f"{path}: {reason}"


def test_an_ftrace_text_of_an_unknown_layout_shows_a_line(tmp_path):
    """It is an ftrace text, and says so; what the line holds reaches no terminal as it is."""
    path = tmp_path / "it"
    event = "dd-1 [000] d...2.x.y    0.568704: qi_submit: iec_inv dmar0: \x1b[31m0x4"
    path.write_text(f"# tracer: nop\n#\n          {event}\n" + f"          {event}\n" * 3)
    assert refusal(path) == (
        f"{path}:3: an ftrace text in a layout that is not known: none of 6 lines can be read, the first is "
        "'dd-1 [000] d...2.x.y    0.568704: qi_submit: iec_inv dmar0: ?[31m0x4'"
    )


def test_a_long_text_of_another_kind_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("swiommu.trace.reading._PATIENCE", 1000)
    path = tmp_path / "log"
    path.write_text("x\n" * 1_000_000)
    told = re.fullmatch(r".*: not an ftrace text: no line of (\d+) has the shape of an event; .*", refusal(path))
    assert 1000 <= int(told[1]) < 500_000


def test_only_malformed_lines_name_the_first(tmp_path):
    path = tmp_path / "it"
    path.write_text(f"# tracer: nop\n{LINE}cma_release: name=r\n{LINE}map: IOMMU\n")
    assert refusal(path) == (
        f"{path}:2: 2 lines of known events, but none can be read "
        "(cma_release: the text is cut, or no known kernel prints it so)"
    )


def test_a_missing_file(tmp_path):
    path = tmp_path / "none.trace"
    assert refusal(path) == f"{path}: no such file, and no bundled recording of that name (there are {BUNDLED})"


def test_a_directory(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: is a directory, not a trace"


def test_a_permission_error_is_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "it"

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert refusal(path) == f"{path}: may not be read (permission denied)"


def test_a_name_that_no_file_can_have():
    name = "x" * 5000
    assert refusal(name) == f"{name}: can't be read: File name too long"


def test_a_device_without_end_is_refused_at_once():
    assert refusal("/dev/zero") == "/dev/zero: is a binary file, not an ftrace text"


def test_truncated_gzip_says_what_was_readable(tmp_path):
    whole = bundled_path("arm64-6.12-cam-cma64M-s81").read_bytes()
    path = tmp_path / "it.trace.gz"
    path.write_bytes(whole[: len(whole) // 2])
    text = refusal(path)
    lines = int(re.search(r"\d+(?= lines were readable)", text)[0])
    assert 1500 < lines < 2500
    assert text == f"{path}: is a truncated gzip file; {lines} lines were readable before the cut"
    path.write_bytes(whole[:12])
    assert refusal(path) == f"{path}: is a truncated gzip file; 0 lines were readable before the cut"


def test_damaged_gzip(tmp_path):
    path = tmp_path / "it.gz"
    packed = gzip.compress(RELEASE.encode())
    path.write_bytes(packed[:-8] + b"\0\0\0\0" + packed[-4:])
    text = refusal(path)
    assert text.startswith(f"{path}: is a damaged gzip file (CRC check failed ")
    assert text.endswith("; 1 line was readable before the damage")
    path.write_bytes(packed + b"garbage")
    assert refusal(path) == (
        f"{path}: is a damaged gzip file (Not a gzipped file (b'ga')); 1 line was readable before the damage"
    )
    path.write_bytes(packed[:10] + b"\xff" + packed[11:])
    assert refusal(path) == (
        f"{path}: is a damaged gzip file (Error -3 while decompressing data: invalid block type); "
        "0 lines were readable before the damage"
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_standard_input(pack, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(pack(RELEASE.encode() * 3)))
    monkeypatch.setattr(sys, "stdin", stdin)
    trace = read_trace("-")
    assert (len(trace.table), trace.name, trace.sidecar) == (3, "-", None)
    assert not stdin.buffer.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert refusal("-") == "standard input: is empty, not a trace"


def test_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    if os.fork() == 0:
        with path.open("wb", buffering=0) as pipe:
            for byte in RELEASE.encode() * 2:
                pipe.write(bytes([byte]))
        os._exit(0)
    assert len(read_trace(path).table) == 2
    os.wait()


def test_a_bundled_name_and_a_file_of_that_name(tmp_path, monkeypatch):
    name = "arm64-6.12-cam-cma64M-s81"
    assert len(read_trace(name).table) == len(open_bundled(name).table) == 4029
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(RELEASE)
    assert len(read_trace(name).table) == 1
    with pytest.raises(InputError, match=f"^no bundled recording 'holiday'; there are {BUNDLED}$"):
        open_bundled("holiday")


def test_binary_rubbish_at_the_end_of_a_trace_is_not_a_binary_file(tmp_path):
    """What a power cut leaves: the file's tail is zeros."""
    path = tmp_path / "it"
    path.write_bytes(RELEASE.encode() * 3 + b"\0" * 4000)
    account = read_trace(path).account
    assert (account.used, account.unreadable, account.cut_tail) == (3, 1, 1)
