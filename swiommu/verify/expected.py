"""The commands and requests that a trace's maps and unmaps must have caused, for each kind of hardware, in their order.

The rules themselves are the domains' (`swiommu.iommu.commands`); here they are asked with what the trace tells.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.errors import InvalidArgument
from swiommu.iommu.commands import VTD_MAX_MASK, aligned_pieces, amd_pieces, smmu_unmap, vtd_block, vtd_unmap
from swiommu.pagetable import page_size_choice
from swiommu.pagetable.formats import AMD_V1, arm_lpae, vtd_ss
from swiommu.pagetable.rules import Gathers
from swiommu.trace import Context, Kind
from swiommu.verify.timeline import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swiommu.pagetable import Format
    from swiommu.profile import Profile
    from swiommu.verify.timeline import Op, Timeline

__all__ = [
    "ALL_SIZES",
    "BARRIER",
    "DOMAIN",
    "FORMAT_OF",
    "Expected",
    "Leaf",
    "Mapped",
    "amd_commands",
    "calls",
    "leaf_at",
    "pages",
    "request",
    "smmu_commands_of",
    "smmu_pages",
    "virtio_requests",
    "vtd_commands",
    "vtd_name",
]

ALL_SIZES: Final = (1 << 64) - PAGE_SIZE
"""Every power of two of pages: what a virtio-iommu offers."""

BARRIER: Final = "wait"
"""Stands behind the commands of one flush of AMD-Vi."""

DOMAIN: Final = "the whole domain"

FORMAT_OF: Final[dict[str, Callable[[Profile], Format]]] = {
    "VT-d": lambda profile: vtd_ss(profile=profile),
    "SMMUv3": lambda profile: arm_lpae(profile=profile),
    "AMD-Vi": lambda _profile: AMD_V1,
}
"""The format of the tables, by hardware, as a kernel writes it; virtio-iommu has none."""


class Expected(NamedTuple):
    """One command or request: the operation that causes it, whose, and what it says."""

    place: int
    who: str
    text: str
    context: Context


def vtd_name(number: int) -> str:
    """A VT-d domain by its number, which the trace prints too.

    >>> vtd_name(3)
    'domain 3'
    """
    return f"domain {number}"


def pages(iova: int, size: int) -> str:
    """What a command for a block of pages says.

    >>> pages(0xffffd000, 0x1000)
    '0xffffd000 + 0x1000'
    """
    return f"{iova:#x} + {size:#x}"


def smmu_pages(iova: int, size: int, ttl: int, leaf: int) -> str:
    """What an aligned piece of an SMMU's range command says.

    >>> smmu_pages(0xffffd000, 0x1000, 3, 1)
    '0xffffd000 + 0x1000, ttl 3, leaf 1'
    """
    return f"{pages(iova, size)}, ttl {ttl}, leaf {leaf}"


def request(iova: int, last: int, output: int, flags: int) -> str:
    """What a request to a virtio-iommu says; ``flags`` is -1 for an unmap.

    >>> request(0x1000, 0x1fff, 0x89000, 3), request(0x1000, 0x1fff, 0, -1)
    ('map 0x1000-0x1fff to 0x89000, flags 3', 'unmap 0x1000-0x1fff')
    """
    told = f"{iova:#x}-{last:#x}"
    return f"unmap {told}" if flags < 0 else f"map {told} to {output:#x}, flags {flags}"


# -- what is mapped -------------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """One leaf of a mapping."""

    iova: int
    output: int
    size: int


def leaf_at(op: Op, iova: int, bitmap: int) -> Leaf | None:
    """The leaf at ``iova`` of a range that was mapped in one go; None if no page sizes of ``bitmap`` fit it.

    >>> from swiommu.verify.timeline import Op
    >>> op = Op(Kind.IOMMU_MAP, 1, (0, 0, 0), 0x1ff000, 0x202000, paddr=0x5ff000)
    >>> [hex(number) for number in leaf_at(op, 0x234000, 0x40201000)]
    ['0x200000', '0x600000', '0x200000']
    """
    at, output, left = op.iova, op.paddr, op.size
    while left > 0:
        try:
            pgsize, count = page_size_choice(bitmap, at, output, left)
        except InvalidArgument:
            return None
        done = pgsize * count
        if iova < at + done:
            behind = (iova - at) // pgsize * pgsize
            return Leaf(at + behind, output + behind, pgsize)
        at, output, left = at + done, output + done, left - done
    return None


@attrs.define(eq=False)
class Mapped:
    """What is mapped in one domain, as far as the trace tells: ranges, and the operation that mapped each."""

    starts: list[int] = attrs.field(factory=list)
    held: dict[int, tuple[int, Op]] = attrs.field(factory=dict)

    def at(self, iova: int) -> Op | None:
        """Who mapped this address."""
        index = bisect_right(self.starts, iova)
        if index:
            stop, op = self.held[self.starts[index - 1]]
            if iova < stop:
                return op
        return None

    def add(self, op: Op) -> None:
        """The range is mapped now, whatever was there."""
        self.cut(op.iova, op.stop)
        self.put(op.iova, op.stop, op)

    def put(self, start: int, stop: int, op: Op) -> None:
        """Part of what ``op`` mapped, where nothing is."""
        self.starts.insert(bisect_left(self.starts, start), start)
        self.held[start] = (stop, op)

    def cut(self, start: int, stop: int) -> list[tuple[int, int, Op]]:
        """Take everything in ``[start, stop)`` away; the parts, by address."""
        first = bisect_left(self.starts, start)
        if first and self.held[self.starts[first - 1]][0] > start:
            first -= 1
        last = bisect_left(self.starts, stop)
        taken = [(begin, *self.held.pop(begin)) for begin in self.starts[first:last]]
        del self.starts[first:last]
        for begin, end, op in taken:
            if begin < start:
                self.put(begin, start, op)
            if end > stop:
                self.put(stop, end, op)
        return [(max(begin, start), min(end, stop), op) for begin, end, op in taken]


def calls(timeline: Timeline) -> Iterator[tuple[int, int, Op]]:
    """Place, first address and last operation of everything that was done in one go.

    >>> from swiommu.verify.timeline import Op, Timeline
    >>> ops = [Op(Kind.IOMMU_MAP, n, (0, 0, 0), 0x1000 * n, 0x1000, call=7) for n in (1, 2)]
    >>> [(place, hex(start), hex(op.stop)) for place, start, op in calls(Timeline(ops))]
    [(1, '0x1000', '0x3000')]
    """
    start: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, op in enumerate(timeline.ops):
        if op.kind is Kind.IOMMU_MAP:
            start.setdefault(op.call, op.iova)
            last[op.call] = place
    for place, op in enumerate(timeline.ops):
        if op.kind is not Kind.IOMMU_MAP:
            yield place, op.iova, op
        elif last[op.call] == place:
            yield place, start[op.call], op


# -- VT-d -----------------------------------------------------------------------------------------------------------


def vtd_commands(
    timeline: Timeline, profile: Profile, is_lazy: Callable[[str], bool], *, caches_absent: bool = False
) -> list[Expected]:
    """Blocks of pages for every unmap, the whole domain for every flush of everything that the trace prints.

    ``caches_absent``: the unit caches absent entries, so that maps are flushed too, call by call. What no dma event
    tells whose it is, is left out with its domain (`Timeline.told_numbers`).
    """
    form = vtd_ss(profile=profile)
    bitmap, by_chunk = form.pgsize_bitmap, form.rules.gathers is Gathers.CHUNK
    number_of = {owner: number for number, owner in timeline.numbers.items()}
    told = timeline.told_numbers
    commands: list[Expected] = []

    for place, start, op in calls(timeline):
        number = op.number if op.number >= 0 else number_of.get(op.owner, -1)
        ranges: list[tuple[int, int]] = []
        if op.kind is Kind.FLUSH_ALL:
            commands.append(Expected(place, vtd_name(number), DOMAIN, op.context))
        elif number not in told:
            continue
        elif op.kind is Kind.IOMMU_UNMAP and (op.number >= 0 or not is_lazy(op.owner)):
            ranges = vtd_unmap(op.iova, op.size, bitmap=bitmap, by_chunk=by_chunk)
        elif op.kind is Kind.IOMMU_MAP and caches_absent:
            ranges = [(start, op.stop - 1)]
        for first, last in ranges:
            block, mask = vtd_block(first, last)
            text = DOMAIN if mask > VTD_MAX_MASK else pages(block, PAGE_SIZE << mask)
            commands.append(Expected(place, vtd_name(number), text, op.context))
    return commands


# -- SMMUv3 ---------------------------------------------------------------------------------------------------------


def smmu_commands_of(timeline: Timeline, is_lazy: Callable[[str], bool]) -> list[Expected]:
    """Range commands for every unmap of a strict domain, in the aligned pieces in which an emulator notes them."""
    domains: dict[str, Mapped] = {}
    bitmap = arm_lpae().pgsize_bitmap
    commands = []
    for place, op in enumerate(timeline.ops):
        mapped = domains.setdefault(op.owner, Mapped())
        if op.kind is Kind.IOMMU_MAP:
            mapped.add(op)
        elif op.kind is Kind.IOMMU_UNMAP:
            if op.owner != NOBODY and not is_lazy(op.owner):
                for each in smmu_unmap(op.iova, op.size, _is_leaf(mapped, bitmap), bitmap=bitmap):
                    for start, size in aligned_pieces(each.iova, each.iova + each.pages * PAGE_SIZE - 1):
                        text = smmu_pages(start, size, each.ttl, int(each.leaf))
                        commands.append(Expected(place, op.owner, text, op.context))
            mapped.cut(op.iova, op.stop)
    return commands


def _is_leaf(mapped: Mapped, bitmap: int) -> Callable[[int, int], bool]:
    def is_leaf(iova: int, pgsize: int) -> bool:
        op = mapped.at(iova)
        leaf = None if op is None else leaf_at(op, iova, bitmap)
        return leaf is not None and leaf.size == pgsize

    return is_leaf


# -- AMD-Vi ---------------------------------------------------------------------------------------------------------


def amd_commands(timeline: Timeline) -> list[Expected]:
    """Blocks for every unmap, and for all that a call mapped: absent entries are cached. Addresses are not noted."""
    commands = []
    for place, start, op in calls(timeline):
        if op.kind is not Kind.FLUSH_ALL:
            flushed = len(amd_pieces(start, op.stop - 1))
            commands += [Expected(place, op.owner, "pages", op.context)] * flushed
            commands.append(Expected(place, op.owner, BARRIER, op.context))
    return commands


# -- virtio-iommu ---------------------------------------------------------------------------------------------------


def virtio_requests(timeline: Timeline, bitmap: int) -> list[Expected]:
    """A map for every run of pages of one size; an unmap for every run, which takes whole mappings that begin in it."""
    domains: dict[str, dict[int, int]] = {}
    requests = []
    for place, op in enumerate(timeline.ops):
        held = domains.setdefault(op.owner, {})
        if op.kind is Kind.IOMMU_MAP:
            texts = _map_requests(op, bitmap, held)
        elif op.kind is Kind.IOMMU_UNMAP:
            texts = _unmap_requests(op, bitmap, held)
        else:
            continue
        requests += [Expected(place, op.owner, text, op.context) for text in texts]
    return requests


def _map_requests(op: Op, bitmap: int, held: dict[int, int]) -> Iterator[str]:
    at, left = op.iova, op.size
    while left > 0:
        output = op.paddr + at - op.iova
        try:
            pgsize, count = page_size_choice(bitmap, at, output, left)
        except InvalidArgument:
            return
        size = pgsize * count
        yield request(at, at + size - 1, output, (op.prot or 0) & 3)
        held[at] = size
        at, left = at + size, left - size


def _unmap_requests(op: Op, bitmap: int, held: dict[int, int]) -> Iterator[str]:
    """``viommu_del_mappings``: mappings go whole, so that one request may take more than was asked of it."""
    at = op.iova
    while at < op.stop:
        try:
            pgsize, count = page_size_choice(bitmap, at, at, op.stop - at)
        except InvalidArgument:
            return
        end, stop = at + pgsize * count, at
        while stop < end and stop in held:
            stop += held.pop(stop)
        if stop == at:
            return
        yield request(at, stop - 1, 0, -1)
        at = stop
