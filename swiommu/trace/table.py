"""The event table: one column a field, one row an event, strings interned.

Columns and what they hold in general: ``line`` (from 1), ``time`` (ns), ``cpu``, ``pid``, ``level``
(`InterruptLevel`), ``kind`` (`Kind`), ``device``/``name``/``flags`` (ids into ``names``; id 0 is the empty string),
``addr``/``phys``/``size``/``extra`` (unsigned 64 bits), ``err`` (signed), ``sg`` (scatter list or -1).
What is not listed for a kind is 0, empty or -1.

    kind             columns
    DMA_MAP          device; addr=dma_addr (all ones: failed), phys=phys_addr, size, name=direction, flags=attrs
                     (a dma_map_resource gets MMIO added to its attrs, as kernels from 6.18 print it)
    DMA_UNMAP        device; addr=dma_addr, size, name=direction, flags=attrs
    DMA_MAP_SG       device; sg; addr, phys=first of each list, size=sum of the printed sizes, extra=nents (real),
                     name=direction, flags=attrs
    DMA_UNMAP_SG     device; sg (phys_addrs only); phys=first, extra=printed count, name=direction, flags=attrs
    DMA_MAP_SG_ERR   device; sg (phys_addrs only); phys=first, extra=printed count, err, name=direction, flags=attrs
    DMA_ALLOC        device; addr=dma_addr, size, extra=virt_addr (0: failed), name=direction, flags=gfp flags, then
                     attrs as DMA_ATTR_..., all joined with |
    DMA_FREE         device; addr=dma_addr, size (0: a free of nothing), extra=virt_addr, name=direction, flags=attrs
    DMA_SYNC_CPU     device; addr=dma_addr, size, name=direction; of a list: sg, addr=first, size=sum of the printed
    DMA_SYNC_DEVICE  sizes
    IOMMU_MAP        addr=iova, phys=paddr, size
    IOMMU_UNMAP      addr=iova, size=asked, extra=unmapped_size
    IOMMU_FAULT      device, name=driver; addr=iova, flags=the printed flags
    GROUP_ADD/REMOVE device; extra=group number
    DOMAIN_ATTACH    device
    FLUSH_RANGE(_NP) device=unit or device of the tag, name=IOMMU; addr=first byte, phys=last byte, size=mask (the
                     command covers 2^mask pages), extra=domain id, err=pasid, flags=tag type
    FLUSH_ALL, TAG_* device=as above, name=IOMMU; extra=domain id, err=pasid, size=reference count, flags=tag type
    QI_SUBMIT        device=IOMMU, name=command (iotlb_inv ...); addr, phys, size, extra=the four words
    CMA_START        name=area; size=pages, extra=align order; from 6.18: addr=free pages, phys=pages of the area
    CMA_FINISH       name=area; addr=pfn, size=pages, extra=align order, err=errorno as printed (0 or negative)
    CMA_BUSY_RETRY   name=area; addr=pfn, size=pages, extra=align order
    CMA_RELEASE      name=area; addr=pfn, size=pages
    BOUNCED          device; phys=dev_addr, size, extra=dma_mask, flags=FORCE or NORMAL
    MARK             flags=the text
    IOVA_INIT        addr=first pfn, size=granule in bytes, extra=iovad
    IOVA_RESERVE     addr=lowest pfn, phys=highest pfn, extra=iovad
    IOVA_ALLOC       addr=highest pfn allowed, size=pages, extra=iovad, flags=flush (1: may empty the caches)
    IOVA_ALLOC_RET   addr=pfn (0: none)
    IOVA_SLOW        addr=highest pfn allowed, size=pages, extra=iovad, flags=aligned (1: to its size)
    IOVA_SLOW_RET    addr=lowest pfn, phys=highest pfn; err=-14 where the probe found no object (failed)
    IOVA_FREE        addr=pfn, size=pages, extra=iovad
    IOMMU_MAP_CALL,  addr=iova, phys=paddr, size (all in bytes), extra=domain pointer, flags=prot as printed
    IOMMU_MAP_NOSYNC_CALL
    IOMMU_MAP_SG_CALL   addr=iova, size=nents, extra=domain pointer, flags=prot as printed
    IOMMU_UNMAP_CALL    addr=iova, size in bytes, extra=domain pointer
    LOST             cpu; size=events lost before the next line of that CPU (0: the kernel didn't say how many);
                     time=that of the row before
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

from swiommu.trace.events import Event, Kind, ScatterList

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["COLUMNS", "EventTable", "Row"]

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
        # A chain of C iterators: reading a million events costs no Python call per field.
        text = self.names.__getitem__
        line, time, cpu, pid, level, kind, device, name, addr, phys, size, extra, err, flags, sg = self.columns
        return map(
            Event._make,
            zip(
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
            ),
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
