"""An emulator's log brought into the order of its trace, by the commands in it, as it has no time stamps.

Between two commands the log sees what is mapped in the window between the operations that caused them. The log is read
twice, the first time for its commands and for who is who, and is never held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swiommu.profile import DEFAULT_PROFILE
from swiommu.trace import Context, Kind, Trace
from swiommu.trace.emulator import (
    Attached,
    Command,
    EmulatorLog,
    Entry,
    Executed,
    Found,
    Invalidated,
    Lookup,
    OtherCommand,
    PageSizes,
    Request,
    Step,
    Translated,
)
from swiommu.verify.emulated.order import Order, align
from swiommu.verify.expected import (
    ALL_SIZES,
    BARRIER,
    DOMAIN,
    Expected,
    amd_commands,
    pages,
    request,
    smmu_commands_of,
    smmu_pages,
    virtio_requests,
    vtd_commands,
    vtd_name,
)
from swiommu.verify.timeline import NOBODY, Timeline, read_timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.profile import Profile


__all__ = ["Emulated", "Noted", "expected_of_vtd", "lazy_owners", "noted_in_trace", "read_emulated"]

_DOMAIN, _PAGES = 2, 3  # granularity of a VT-d command


@attrs.define(eq=False)
class Noted:
    """A command or request that was noted: its line, the domain's number, and whose it was known to be just then."""

    line: int
    number: int
    text: str
    who: str = ""


@attrs.define(eq=False)
class Emulated:
    """A log and its trace: what was expected, what was noted, and which is which.

    ``order`` pairs ``noted`` with ``expected``; ``owners`` tells whose a domain's number is; ``boot`` are the domains
    that AMD-Vi was told to forget before anything else. ``page_sizes`` are a virtio-iommu's, ``top_level`` is where an
    SMMU's walks begin. ``is_whole``: the log holds the hardware's start. ``unordered``: why it can't be brought into
    order, empty if it can.
    """

    log: EmulatorLog
    timeline: Timeline
    is_lazy: Lazy
    expected: list[Expected] = attrs.field(factory=list)
    noted: list[Noted] = attrs.field(factory=list)
    boot: list[Noted] = attrs.field(factory=list)
    owners: dict[int, str] = attrs.field(factory=dict)
    order: Order = attrs.field(factory=Order)
    profile: Profile = DEFAULT_PROFILE
    page_sizes: int = ALL_SIZES
    top_level: int = 3
    unordered: str = ""
    is_whole: bool = False

    @property
    def behind(self) -> str:
        """Why nothing is determined behind the last expected command."""
        return "behind the end of the trace" if self.timeline.lost is None else "events were lost before it"


@attrs.frozen
class Lazy:
    """Which owners' domains flush lazily; called with one of them."""

    owners: frozenset[str]
    others: bool

    def __call__(self, owner: str) -> bool:
        return owner in self.owners or (self.others and owner != NOBODY)


def lazy_owners(trace: Trace, timeline: Timeline) -> Lazy:
    """Lazy as the sidecar says, by group; without one as the trace looks: flushes of everything, none of ranges.

    >>> from swiommu.trace import open_bundled
    >>> trace = open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89")
    >>> lazy_owners(trace, read_timeline(trace))("group 1")
    False
    """
    sidecar = trace.sidecar
    if sidecar is not None and sidecar.groups:
        lazy = frozenset(f"group {group.id}" for group in sidecar.groups if group.type == "DMA-FQ")
        return Lazy(lazy, others=False)
    if sidecar is not None:
        return Lazy(frozenset(), others=sidecar.iommu_mode == "lazy")
    kinds = {op.kind for op in timeline.ops if op.number >= 0}
    return Lazy(frozenset(), others=Kind.FLUSH_ALL in kinds and Kind.IOMMU_UNMAP not in kinds)


def read_emulated(trace: Trace, log: EmulatorLog) -> Emulated:
    """Read a log for the first time and bring it into order; `InputError` for what is no emulator's log.

    >>> from swiommu.trace import open_bundled
    >>> trace = open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89")
    >>> trace.emulator is None
    True
    """
    timeline = read_timeline(trace)
    emulated = Emulated(log, timeline, lazy_owners(trace, timeline))
    _First(emulated).read()
    emulated.profile = trace.sidecar.profile if trace.sidecar else DEFAULT_PROFILE
    if log.hardware == "VT-d":
        emulated.expected = expected_of_vtd(trace, timeline)
    elif log.hardware == "SMMUv3":
        emulated.expected = smmu_commands_of(timeline, emulated.is_lazy)
    elif log.hardware == "AMD-Vi":
        emulated.expected = amd_commands(timeline)
    else:
        emulated.expected = virtio_requests(timeline, emulated.page_sizes)
    if log.hardware == "VT-d":
        for each in emulated.noted:
            each.who = vtd_name(each.number)
    else:
        _name(emulated)
    if log.hardware in {"SMMUv3", "AMD-Vi"} and any(
        emulated.is_lazy(op.owner) for op in timeline.ops if op.kind is Kind.IOMMU_UNMAP
    ):
        emulated.unordered = "the trace doesn't show when a flush queue flushes"
        return emulated
    emulated.order = align(
        [(each.who, each.text) for each in emulated.expected],
        [(each.who, each.text) for each in emulated.noted],
        [each.context for each in emulated.expected],
        whole=emulated.is_whole,
    )
    if emulated.order.ambiguous:
        emulated.unordered = "the log begins in the middle, and its commands don't tell where"
    return emulated


def _name(emulated: Emulated) -> None:
    """Whose a number is that no access of a device told: what is left over on both sides, in order of appearance."""
    asking = dict.fromkeys(each.who for each in emulated.expected if each.who != NOBODY)
    known = set(emulated.owners.values())
    numbers = dict.fromkeys(each.number for each in emulated.noted if not each.who)
    strangers = [number for number in numbers if number not in emulated.owners]
    for number, owner in zip(strangers, (each for each in asking if each not in known), strict=False):
        emulated.owners[number] = owner
    for each in emulated.noted:
        each.who = each.who or emulated.owners.get(each.number, f"domain {each.number}")


class _First:
    """The first pass: commands, and who is who by the accesses of devices."""

    def __init__(self, emulated: Emulated) -> None:
        self.emulated = emulated
        self.now: dict[int, str] = {}  # whose a number is at this point of the log
        self.looked = -1
        self.flushing: list[Noted] = []
        self.executed = 0

    def read(self) -> None:
        handlers: dict[type, Callable[[Any], None]] = {
            Invalidated: self.invalidated,
            Command: self.command,
            Request: self.request,
            Executed: self.execute,
            OtherCommand: self.other,
            Entry: self.used,
            Found: self.used,
            Attached: self.used,
            Lookup: self.lookup,
            Translated: self.translated,
            PageSizes: self.page_sizes,
            Step: self.step,
        }
        for record in self.emulated.log:
            handler = handlers.get(type(record))
            if handler is not None:
                handler(record)
        self.wait()

    def learn(self, number: int, sid: int) -> None:
        owner = self.emulated.timeline.owners.get(sid)
        if owner is not None and number >= 0:
            self.now[number] = owner
            self.emulated.owners.setdefault(number, owner)

    def used(self, record: Entry | Found | Attached) -> None:
        self.learn(record.domain, record.sid)

    def lookup(self, record: Lookup) -> None:
        self.looked = record.domain

    def translated(self, record: Translated) -> None:
        """An SMMU names the domain before, the device behind."""
        if self.looked >= 0:
            self.learn(self.looked, record.sid)
            self.looked = -1

    def page_sizes(self, record: PageSizes) -> None:
        self.started()
        self.emulated.page_sizes = record.bitmap

    def step(self, record: Step) -> None:
        if record.level >= 0:
            self.emulated.top_level = min(self.emulated.top_level, record.level)

    def started(self) -> None:
        """What a driver does when it takes the hardware over."""
        self.emulated.is_whole = self.emulated.is_whole or not self.emulated.noted

    # -- commands

    def note(self, line: int, number: int, text: str) -> Noted:
        noted = Noted(line, number, text, self.now.get(number, ""))
        self.emulated.noted.append(noted)
        return noted

    def invalidated(self, record: Invalidated) -> None:
        if self.emulated.log.hardware == "VT-d":
            self.note(record.line, record.domain, pages(record.iova, record.size))
        elif self.emulated.log.hardware == "SMMUv3":
            self.note(record.line, record.domain, smmu_pages(record.iova, record.size, record.ttl, record.leaf))
        else:
            self.executed = 0
            self.flushing.append(self.note(record.line, record.domain, "pages"))

    def command(self, record: Command) -> None:
        self.executed = 0
        if record.domain < 0:
            self.started()
        elif self.emulated.log.hardware == "VT-d":
            self.note(record.line, record.domain, DOMAIN)

    def request(self, record: Request) -> None:
        self.note(record.line, record.domain, request(record.iova, record.last, record.output, record.flags))

    def execute(self, record: Executed) -> None:
        self.wait()
        self.executed = record.line

    def other(self, _record: OtherCommand) -> None:
        self.executed = 0

    def wait(self) -> None:
        """A command of which no line tells what it was, behind commands for pages: they were one flush."""
        line, self.executed = self.executed, 0
        flushed = self.flushing
        if not line or not flushed:
            return
        self.flushing = []
        if len(flushed) == len(self.emulated.noted) and len({each.number for each in flushed}) > 1:
            self.emulated.boot += flushed
            del self.emulated.noted[-len(flushed) :]
            self.started()
        else:
            self.note(line, flushed[-1].number, BARRIER)


def expected_of_vtd(trace: Trace, timeline: Timeline) -> list[Expected]:
    """What VT-d must be told, in the order of the unmaps.

    >>> from swiommu.trace import open_bundled
    >>> trace = open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89")
    >>> expected_of_vtd(trace, read_timeline(trace))
    []
    """
    profile = trace.sidecar.profile if trace.sidecar else DEFAULT_PROFILE
    caches_absent = trace.table.count(Kind.FLUSH_RANGE_NP) > 0
    return vtd_commands(timeline, profile, lazy_owners(trace, timeline), caches_absent=caches_absent)


def noted_in_trace(trace: Trace) -> dict[Context, list[Noted]]:
    """What the trace itself prints of what VT-d is told, by line of execution.

    >>> from swiommu.trace import open_bundled
    >>> noted_in_trace(open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89"))
    {}
    """
    noted: dict[Context, list[Noted]] = {}
    for event in trace.table.of({Kind.QI_SUBMIT, Kind.LOST}):
        if event.kind is Kind.LOST:
            break
        if event.name != "iotlb_inv":
            continue
        number, granularity = event.addr >> 16 & 0xFFFF, event.addr >> 4 & 3
        if granularity in {_DOMAIN, _PAGES}:
            block = pages(event.phys & ~0xFFF, 1 << 12 + (event.phys & 0x3F))
            told = Noted(event.line, number, block if granularity == _PAGES else DOMAIN, vtd_name(number))
            noted.setdefault(event.context, []).append(told)
    return noted
