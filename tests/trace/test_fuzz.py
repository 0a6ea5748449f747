"""Hostile input of every kind: a sentence or a trace whose account adds up, never a traceback or a silent loss."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.errors import InputError
from swiommu.trace import KIND_OF, Kind, bundled_path, read_trace

# One line of every event and version, from the recordings and, where these hold none, from the kernel's formats.
LINES = (Path(__file__).parents[1] / "data" / "event-lines.txt").read_bytes().splitlines()

BYTES = st.binary(max_size=3000)
ALPHABET = b"\n\r\0 -[]:.#{}<>=,0123456789abcdefxX_+dmapiovcCPU:LOST\xff\xc3\xa9"
NOISE = st.lists(st.sampled_from([bytes([byte]) for byte in ALPHABET]), max_size=300).map(b"".join)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "it.trace"


def read_or_refuse(path, data):
    """The trace, or None for a refusal in one line; any other error is the finding."""
    path.write_bytes(data)
    error = trace = None
    try:
        trace = read_trace(path)
    except InputError as refusal:
        error = str(refusal)
    assert error is None or (error.startswith(str(path)) and "\n" not in error)
    return trace


def judge(path, data):
    """Read ``data`` from a file; every line must be accounted for."""
    trace = read_or_refuse(path, data)
    if trace is None:
        return None
    account, table = trace.account, trace.table
    account.check()
    table.check()
    lines = data if data[:2] != b"\x1f\x8b" else gzip.decompress(data)
    assert account.total_lines == lines.count(b"\n") + (not lines.endswith(b"\n"))
    assert len(table) == account.used + account.lost_lines
    assert table.count(Kind.LOST) == account.lost_lines
    for event in table:
        assert 1 <= event.line <= account.total_lines
    return trace


@given(BYTES | NOISE)
def test_any_bytes(file, data):
    judge(file, data)


@given(BYTES | NOISE)
def test_any_bytes_after_a_good_line(file, data):
    trace = judge(file, LINES[0] + b"\n" + data)
    if trace:
        assert next(iter(trace.table)).line == 1


@given(BYTES)
def test_any_bytes_in_gzip_and_any_cut(file, data):
    packed = gzip.compress(LINES[0] + b"\n" + data)
    judge(file, packed)
    assert read_or_refuse(file, packed[: len(packed) // 2 + 1]) is None


@st.composite
def mutated(draw):
    """Real lines with a few bytes replaced, inserted, doubled or cut."""
    lines = []
    for line in draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=8)):
        text = bytearray(line)
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(text)))
            how = draw(st.integers(0, 3))
            if how == 0:
                text[at : at + 1] = bytes([draw(st.sampled_from(ALPHABET))])
            elif how == 1:
                text[at:at] = draw(st.binary(max_size=3))
            elif how == 2:
                text[at:at] = text[at : at + draw(st.integers(1, 40))]
            else:
                del text[at : at + draw(st.integers(1, 20))]
        lines.append(bytes(text))
    return b"\n".join(lines) + b"\n" * draw(st.integers(0, 1))


@given(mutated())
@settings(max_examples=150)
def test_mutated_real_lines(file, data):
    judge(file, data)


@given(st.data())
@settings(max_examples=80)
def test_one_flipped_byte_changes_at_most_one_row(file, data):
    at = data.draw(st.integers(0, len(LINES) - 1))
    line = bytearray(LINES[at])
    spot = data.draw(st.integers(0, len(line) - 1))
    line[spot] = data.draw(st.sampled_from([byte for byte in ALPHABET if byte not in b"\n\r"]))
    whole = judge(file, b"\n".join(LINES) + b"\n")
    other = judge(file, b"\n".join([*LINES[:at], bytes(line), *LINES[at + 1 :]]) + b"\n")
    rows = {event.line: event[4:12] for event in whole.table}
    changed = {event.line: event[4:12] for event in other.table}
    assert {number for number in rows if rows[number] != changed.get(number)} <= {at + 1}


@given(st.integers(0, 43621), st.integers(1, 255))
@settings(max_examples=40)
def test_one_flipped_byte_of_a_gzip_recording(file, spot, flip):
    """Either the checksum says so, or the byte was one that the format doesn't protect (the header's time)."""
    data = bytearray(bundled_path("arm64-6.12-cam-cma64M-s81").read_bytes())
    data[spot] ^= flip
    trace = read_or_refuse(file, bytes(data))
    if trace:
        assert spot < 10
        assert trace.account.used == 4029


@pytest.mark.parametrize(
    "text",
    [b"-" * 9, b" " * 9 + b"x", b"-1 ", b"a-1 [000] ", b"1", b"0x1,", b"{0x1,", b"x ", b"x=", b"x [", b"/"],
    ids=["dashes", "spaces", "pids", "heads", "digits", "numbers", "lists", "words", "keys", "brackets", "slashes"],
)
def test_no_line_takes_longer_than_its_length_allows(file, text):
    """Quadratic matching of such long lines would take minutes, for each of them."""
    heads = [b"", *(f"           v4l-185     [000] .....     8.000001: {event}: ".encode() for event in KIND_OF)]
    starts = [b"", b"d dir=NONE dma_addrs=", b"name=", b"(", b"IOMMU: device="]
    lines = [head + start + text * (50_000 // len(text)) for head in heads for start in starts]
    judge(file, b"\n".join([LINES[0], *lines]))
