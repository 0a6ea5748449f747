"""Are the page tables as the model writes them? Every leaf and every translation that an emulated IOMMU noted.

The log is brought into the order of the trace (`swiommu.verify.emulated.log`), and each line is judged by what is
mapped in its window. A virtio-iommu has no tables: its requests are judged instead, and what they make of accesses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from swiommu.trace.emulator import Entry, Found, LeafWord, Step, Translated
from swiommu.verify.emulated.invalidation import judge_commands
from swiommu.verify.emulated.log import read_emulated
from swiommu.verify.emulated.smmu_walks import Walks
from swiommu.verify.emulated.windows import Beliefs, Windows
from swiommu.verify.expected import ALL_SIZES, FORMAT_OF
from swiommu.verify.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.trace import Trace
    from swiommu.verify.emulated.log import Emulated
    from swiommu.verify.expected import Leaf
    from swiommu.verify.timeline import Op

__all__ = ["verify_pte"]

_JUDGED: Final = (Entry, Found, Translated, Step, LeafWord)


def verify_pte(trace: Trace) -> Tally | None:
    """Predict what every walk and every access comes to; None if no emulator's log lies beside the trace.

    A mismatch's line is that of the log. Undetermined: what was mapped before the trace began, accesses of devices that
    the trace does not know, leaves whose direction nothing tells, and everything where the log can't be brought into
    the order of the trace.

    >>> from swiommu.trace import open_bundled
    >>> verify_pte(open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89")) is None
    True
    """
    if trace.emulator is None:
        return None
    emulated = read_emulated(trace, trace.emulator)
    tally = Tally("pte")
    if emulated.log.hardware == "virtio-iommu":
        judge_commands(tally, "request", emulated.expected, emulated.noted, emulated.order, behind=emulated.behind)
    if emulated.unordered:
        for record in emulated.log:
            if isinstance(record, _JUDGED):
                tally.leave(emulated.unordered)
    elif emulated.log.hardware == "SMMUv3":
        _judge_walks(tally, emulated)
    else:
        _Second(tally, emulated).read()
    return tally if tally.total or tally.undetermined else None


def _judge_walks(tally: Tally, emulated: Emulated) -> None:
    walks = Walks(tally, emulated)
    for record in emulated.log:
        walks.windows.reach(record.line)
        walks.do(record)


class _Second:
    """The second pass over a log of VT-d, AMD-Vi or virtio-iommu: each of its lines tells device and address."""

    def __init__(self, tally: Tally, emulated: Emulated) -> None:
        self.tally = tally
        self.emulated = emulated
        self.windows = Windows(tally, emulated)
        self.beliefs = Beliefs(tally)
        self.hardware = emulated.log.hardware
        form = FORMAT_OF.get(self.hardware)
        self.form = form(emulated.profile) if form is not None else None
        self.bitmap = self.form.pgsize_bitmap if self.form is not None else ALL_SIZES

    def read(self) -> None:
        for record in self.emulated.log:
            self.windows.reach(record.line)
            if isinstance(record, Entry):
                self.entry(record)
            elif isinstance(record, Found):
                self.found(record)
            elif isinstance(record, Translated):
                self.translated(record)

    def mapped(self, kind: str, record: Entry | Found | Translated, recorded: int) -> Op | None:
        owner = self.emulated.timeline.owners.get(record.sid)
        return self.windows.mapped(kind, record.line, owner, record.iova, recorded)

    def domain(self, record: Entry | Found) -> tuple[str, str]:
        """Whether it is the device's domain: predicted and recorded text."""
        owner = self.emulated.timeline.owners.get(record.sid)
        numbers = self.emulated.timeline.numbers or self.emulated.owners
        of = numbers.get(record.domain) if record.domain >= 0 else owner
        told = f" in domain {record.domain}" if record.domain >= 0 else ""
        return (told if of == owner else f" in a domain of {owner}"), told

    def entry(self, record: Entry) -> None:
        """VT-d: the leaf's word."""
        kind = "hit" if record.hit else "update"
        op = self.mapped(kind, record, record.word)
        prot = None if op is None else self.windows.prot(op)
        if op is None or prot is None or self.form is None:
            return
        leaf = self.windows.leaf(op, record.iova, self.bitmap)
        depth = next(d for d, level in enumerate(self.form.levels) if level.pgsize == leaf.size)
        word = self.form.leaf_entry(leaf.output, depth, prot, 0)
        self.beliefs.judge(kind, record.line, op.line, word, record.word, more=self.domain(record))

    def found(self, record: Found) -> None:
        """AMD-Vi: where the leaf begins, which tells its size too."""
        kind = "hit" if record.hit else "update"
        op = self.mapped(kind, record, record.base)
        if op is not None:
            leaf = self.windows.leaf(op, record.iova, self.bitmap)
            self.beliefs.judge(kind, record.line, op.line, leaf.output, record.base, more=self.domain(record))

    def translated(self, record: Translated) -> None:
        op = self.mapped("translation", record, record.output)
        if op is None:
            return
        leaf = self.windows.leaf(op, record.iova, self.bitmap)
        output = _OUTPUT[self.hardware](leaf, record.iova)
        more = ("", "")
        if record.mask >= 0:
            more = f" mask {leaf.size - 1:#x}", f" mask {record.mask:#x}"
        self.beliefs.judge("translation", record.line, op.line, output, record.output, more=more)


# What the line of a translation prints: where the leaf begins, or where the access goes.
_OUTPUT: Final[dict[str, Callable[[Leaf, int], int]]] = {
    "VT-d": lambda leaf, _iova: leaf.output,
    "AMD-Vi": lambda leaf, _iova: leaf.output,
    "virtio-iommu": lambda leaf, iova: leaf.output + iova - leaf.iova,
}
