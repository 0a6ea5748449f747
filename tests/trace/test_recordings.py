"""The reader over whole recordings: nothing lost, golden counts, and stupid twins of both fast paths."""

import gzip
import itertools
import re

import pytest

from swiommu.trace import Kind, bundled_names, open_bundled, read_trace
from swiommu.trace.table import COLUMNS


def text_of(path):
    data = path.read_bytes()
    return gzip.decompress(data).decode() if data[:2] == b"\x1f\x8b" else data.decode()


def test_the_account_adds_up_and_the_counts_are_the_sidecars(trace_path, recording, facts_of):
    trace, _ = recording(trace_path)
    trace.account.check()
    trace.table.check()
    assert trace.account.clean
    assert not trace.account.ignored
    assert trace.notes == []
    assert len(trace.table) == trace.account.used == trace.entries_in_buffer
    if trace.sidecar:
        assert trace.account.events == facts_of(trace_path)["figures"]["events"]
        assert trace.account.total_lines == text_of(trace_path).count("\n")
        assert trace.sidecar.profile.name == ("7.3" if "-7.3-" in trace_path.name else "6.12")


# What a column holds by the token that it comes from; an independent reading of "key=value" texts.
TWIN = {
    Kind.DMA_MAP: {"addr": ("dma_addr", 16), "phys": ("phys_addr", 16), "size": ("size", 10)},
    Kind.DMA_UNMAP: {"addr": ("dma_addr", 16), "size": ("size", 10)},
    Kind.DMA_ALLOC: {"addr": ("dma_addr", 16), "size": ("size", 10), "extra": ("virt_addr", 16)},
    Kind.DMA_FREE: {"addr": ("dma_addr", 16), "size": ("size", 10), "extra": ("virt_addr", 16)},
    Kind.IOMMU_MAP: {"addr": ("iova", 16), "phys": ("paddr", 16), "size": ("size", 10)},
    Kind.IOMMU_UNMAP: {"addr": ("iova", 16), "size": ("size", 10), "extra": ("unmapped_size", 10)},
    Kind.CMA_FINISH: {
        "addr": ("pfn", 16),
        "size": ("count", 10),
        "extra": ("align", 10),
        "err": ("errorno", 10),
    },
    Kind.CMA_RELEASE: {"addr": ("pfn", 16), "size": ("count", 10)},
    Kind.BOUNCED: {"phys": ("dev_addr", 16), "size": ("size", 10), "extra": ("dma_mask", 16)},
    Kind.IOVA_ALLOC: {"addr": ("limit", 16), "size": ("size", 10), "extra": ("iovad", 16)},
}


def test_a_stupid_reading_of_every_line_agrees(trace_path, recording):
    """All lines of the small recordings, and an even sample of the others."""
    trace, _ = recording(trace_path)
    step = 1 + len(trace.table) // 10_000
    lines = text_of(trace_path).split("\n")
    flags = {".": 0, "s": 1, "h": 2, "H": 3}
    for event in itertools.islice(trace.table, 0, None, step):
        line = lines[event.line - 1]
        head = re.search(r"-(\d+) +\[(\d+)\] (\S+) +(\d+)\.(\d+): (\w+): ", line)
        assert (event.pid, event.cpu) == (int(head[1]), int(head[2]))
        assert event.level == flags[head[3][2]]
        assert event.time == int(head[4] + head[5]) * 1000
        tokens = dict(token.split("=", 1) for token in line.split() if "=" in token)
        for column, (key, base) in TWIN.get(event.kind, {}).items():
            assert getattr(event, column) == int(tokens[key], base), line
        if event.device:
            assert event.device in line


def columns_of(table):
    rows = {name: list(column) for (name, _), column in zip(COLUMNS, table.columns, strict=True)}
    for name in ("device", "name", "flags"):
        rows[name] = [table.names[number] for number in rows[name]]
    return rows


@pytest.mark.parametrize("name", bundled_names())
@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.lstrip(),  # a paste: the columns are gone
        lambda line: re.sub(r" (\d+\.\d{6}): ", r" \g<1>000: ", line, count=1),  # nanoseconds
        lambda line: re.sub(r" \[", r" (-------) [", line, count=1),  # record-tgid
        lambda line: re.sub(r" \[", r" (    185) [", line, count=1),
        lambda line: re.sub(r": (\w+): ", r": \1:              ", line, count=1),  # trace-cmd report
        lambda line: line + "\r",
    ],
    ids=["stripped", "nanoseconds", "no-tgid", "tgid", "trace-cmd", "crlf"],
)
def test_other_layouts_read_the_same(name, change, tmp_path):
    plain = open_bundled(name)
    lines = text_of(trace_file(name)).splitlines()
    path = tmp_path / "other.txt"
    path.write_text("\n".join(line if line.startswith("#") else change(line) for line in lines) + "\n", newline="")
    other = read_trace(path)
    assert other.account.clean
    assert columns_of(other.table) == columns_of(plain.table)
    assert other.table._sg == plain.table._sg


def trace_file(name):
    from swiommu.trace import bundled_path

    return bundled_path(name)


def test_the_bundled_recordings_are_small():
    folder = trace_file(bundled_names()[0]).parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1 << 20


def test_events_are_read_by_iteration():
    table = open_bundled("arm64-6.12-cam-cma64M-s81").table
    events = list(table)
    assert len(events) == len(table) == 4029
    assert [event.line for event in events] == list(table.line)
    assert table.counts()[Kind.CMA_FINISH] == table.count(Kind.CMA_FINISH) == 740
    assert table.kinds() == {event.kind for event in events}
    with pytest.raises(IndexError, match=r"^no scatter list -1: the event has none$"):
        table.sg(-1)
