"""The event table: one column a field, one row an event, strings interned.

Columns and what they hold in general: ``line`` (from 1), ``time`` (ns), ``cpu``, ``pid``, ``level``
(`InterruptLevel`), ``kind`` (`Kind`), ``device``/``name``/``flags`` (ids into ``names``; id 0 is the empty string),
``addr``/``phys``/``size``/``extra`` (unsigned 64 bits), ``err`` (signed), ``sg`` (scatter list or -1).
What each of them holds in a row of some kind, `Kind.spec` says (``Kind.DMA_MAP.spec.columns``); what isn't listed
there is 0, empty or -1.
"""

from __future__ import annotations

import enum
from array import array
from collections import Counter
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from swiommu.trace.events import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = [
    "COLUMNS",
    "DMA_MAPPING_ERROR",
    "LEVELS",
    "Context",
    "Event",
    "EventTable",
    "InterruptLevel",
    "Row",
    "ScatterList",
]

DMA_MAPPING_ERROR: Final = (1 << 64) - 1
"""The bus address of a `Kind.DMA_MAP` that failed."""

Context: TypeAlias = tuple[int, int, int]
"""One line of execution: (CPU, PID, `InterruptLevel`). Its events follow each other as its calls do."""

# One number a column, in the order of `COLUMNS`.
Row: TypeAlias = tuple[int, ...]

# Column name and array type code, in the order of `Event`.
COLUMNS: Final = (
    ("line", "q"),
    ("time", "q"),
    ("cpu", "i"),
    ("pid", "i"),
    ("level", "b"),
    ("kind", "b"),
    ("device", "i"),
    ("name", "i"),
    ("addr", "Q"),
    ("phys", "Q"),
    ("size", "Q"),
    ("extra", "Q"),
    ("err", "q"),
    ("flags", "i"),
    ("sg", "i"),
)
_KINDS: Final = tuple(Kind)


class InterruptLevel(enum.IntEnum):
    """Where the CPU was when the event fired: the third flag character of the line (`LEVELS`).

    An interrupt may come between two events of one task, so pairs are made by `Context`, not by task.
    """

    TASK = 0
    SOFTIRQ = 1
    HARDIRQ = 2
    HARDIRQ_IN_SOFTIRQ = 3
    NMI = 4


LEVELS: Final = {
    ".": InterruptLevel.TASK,
    "s": InterruptLevel.SOFTIRQ,
    "h": InterruptLevel.HARDIRQ,
    "H": InterruptLevel.HARDIRQ_IN_SOFTIRQ,
    "z": InterruptLevel.NMI,
    "Z": InterruptLevel.NMI,
}


class Event(NamedTuple):
    """One row of the table with its strings resolved; `Kind.spec` says what each column holds.

    ``line`` counts from 1; ``time`` is in ns (or in ticks of the trace's clock, see `Trace.clock`); ``sg`` is an
    index for `EventTable.sg`, -1 if there is no list.
    """

    line: int
    time: int
    cpu: int
    pid: int
    level: int
    kind: Kind
    device: str
    name: str
    addr: int
    phys: int
    size: int
    extra: int
    err: int
    flags: str
    sg: int

    @property
    def context(self) -> Context:
        """The line of execution that the event belongs to.

        >>> from swiommu.trace import open_bundled
        >>> next(iter(open_bundled("arm64-6.12-cam-cma64M-s81").table)).context
        (0, 1, 0)
        """
        return self.cpu, self.pid, self.level


class ScatterList(NamedTuple):
    """The lists of one scatter-gather event, as printed; numbers in bytes.

    ``nents`` and ``ents`` are the real counts of ``phys_addrs`` and of ``dma_addrs``/``sizes``: the kernel prints
    at most 128 entries of each, so the tuples may be shorter. A list that the event doesn't carry is empty.
    """

    phys_addrs: tuple[int, ...]
    dma_addrs: tuple[int, ...]
    sizes: tuple[int, ...]
    nents: int
    ents: int

    @property
    def is_cut(self) -> bool:
        """Whether the kernel cut one of the printed lists short.

        >>> ScatterList((0x1000,), (0x1000,), (4096,), nents=2, ents=1).is_cut
        True
        """
        cut_bus = bool(self.dma_addrs) and len(self.dma_addrs) < self.ents
        return cut_bus or (bool(self.phys_addrs) and len(self.phys_addrs) < self.nents)


class _Ids(dict[str, int]):
    """Text to id; a miss makes the next id, so that a hit costs one dictionary look-up and no call."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, text: str) -> int:
        self._names.append(text)
        self[text] = number = len(self._names) - 1
        return number


class EventTable:
    """A recording as columns; iterate it for `Event` values, or read the columns (``array``) directly.

    >>> table = EventTable()
    >>> table.extend([(1, 5, 0, 7, 0, Kind.DOMAIN_ATTACH, table.intern("nvme"), 0, 0, 0, 0, 0, 0, 0, -1)])
    >>> len(table), next(iter(table)).device, table.count(Kind.DOMAIN_ATTACH)
    (1, 'nvme', 1)
    """

    __slots__ = (
        "_sg",
        "addr",
        "cpu",
        "device",
        "err",
        "extra",
        "flags",
        "ids",
        "kind",
        "level",
        "line",
        "name",
        "names",
        "phys",
        "pid",
        "sg_index",
        "size",
        "time",
    )

    def __init__(self) -> None:
        self.line = array("q")
        self.time = array("q")
        self.cpu = array("i")
        self.pid = array("i")
        self.level = array("b")
        self.kind = array("b")
        self.device = array("i")
        self.name = array("i")
        self.addr = array("Q")
        self.phys = array("Q")
        self.size = array("Q")
        self.extra = array("Q")
        self.err = array("q")
        self.flags = array("i")
        self.sg_index = array("i")
        self.names: list[str] = []
        self.ids = _Ids(self.names)
        self._sg: list[ScatterList] = []
        self.intern("")

    def intern(self, text: str) -> int:
        """The id of ``text`` in ``names``; the same text always has the same id.

        >>> EventTable().intern("")
        0
        """
        return self.ids[text]

    def add_sg(self, lists: ScatterList) -> int:
        """Keep the lists of one event and give the index that its row's ``sg`` column holds."""
        self._sg.append(lists)
        return len(self._sg) - 1

    def sg(self, index: int) -> ScatterList:
        """The scatter list ``index`` (the ``sg`` field of an event); `IndexError` for -1 or any other stranger."""
        if index < 0:
            raise IndexError(f"no scatter list {index}: the event has none")
        return self._sg[index]

    @property
    def columns(self) -> tuple[array[int], ...]:
        """The fifteen columns in the order of `COLUMNS`."""
        return (
            self.line,
            self.time,
            self.cpu,
            self.pid,
            self.level,
            self.kind,
            self.device,
            self.name,
            self.addr,
            self.phys,
            self.size,
            self.extra,
            self.err,
            self.flags,
            self.sg_index,
        )

    def extend(self, rows: Sequence[Row]) -> None:
        """Append many rows at once; all or nothing: `OverflowError` if a number doesn't fit its column."""
        if not rows:
            return
        columns = self.columns
        values = zip(*rows, strict=True)
        parts = [array(column.typecode, part) for column, part in zip(columns, values, strict=True)]
        for column, part in zip(columns, parts, strict=True):
            column.extend(part)

    def __len__(self) -> int:
        return len(self.line)

    def __iter__(self) -> Iterator[Event]:
        return map(Event._make, self._rows())

    def of(self, kinds: Collection[Kind]) -> Iterator[Event]:
        """The events of some kinds, in order; the others cost next to nothing.

        >>> table = EventTable()
        >>> table.extend([(line, 5, 0, 7, 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, -1) for line, kind in enumerate(Kind)])
        >>> [event.line for event in table.of({Kind.DMA_UNMAP, Kind.DMA_ALLOC})]
        [1, 5]
        """
        return map(Event._make, compress(self._rows(), self.selects(kinds)))

    def selects(self, kinds: Collection[Kind]) -> bytes:
        """A byte per row: 1 for those of some kinds, else 0.

        >>> EventTable().selects({Kind.DMA_MAP})
        b''
        """
        return self.kind.tobytes().translate(bytes(number in kinds for number in range(256)))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        # A chain of C iterators: reading a million events costs no Python call per field.
        text = self.names.__getitem__
        line, time, cpu, pid, level, kind, device, name, addr, phys, size, extra, err, flags, sg = self.columns
        return zip(
            line,
            time,
            cpu,
            pid,
            level,
            map(_KINDS.__getitem__, kind),
            map(text, device),
            map(text, name),
            addr,
            phys,
            size,
            extra,
            err,
            map(text, flags),
            sg,
            strict=True,
        )

    def kinds(self) -> set[Kind]:
        """The kinds that occur."""
        return {_KINDS[kind] for kind in set(self.kind)}

    def count(self, kind: Kind) -> int:
        """How many events of ``kind`` there are."""
        return self.kind.count(kind)

    def counts(self) -> dict[Kind, int]:
        """How many events there are of each kind that occurs, in the order of `Kind`."""
        return {_KINDS[kind]: count for kind, count in sorted(Counter(self.kind).items())}

    def check(self) -> None:
        """Columns are equally long; ids and indexes exist; the empty string is id 0; lines ascend."""
        lengths = {name: len(column) for (name, _), column in zip(COLUMNS, self.columns, strict=True)}
        assert len(set(lengths.values())) == 1, f"columns of different lengths: {lengths}"
        assert self.names[0] == "", f"name 0 is {self.names[0]!r}, not the empty string"
        assert len(set(self.names)) == len(self.names), "a string is interned twice"
        for name in ("device", "name", "flags"):
            column = getattr(self, name)
            assert all(0 <= i < len(self.names) for i in column), f"{name}: an id outside 0..{len(self.names) - 1}"
        assert all(-1 <= i < len(self._sg) for i in self.sg_index), f"an sg index outside -1..{len(self._sg) - 1}"
        assert all(a < b for a, b in zip(self.line, self.line[1:], strict=False)), "line numbers do not ascend"
