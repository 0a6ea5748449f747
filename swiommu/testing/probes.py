"""What laws ask of a path, and how answers are compared and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.address import PAGE_SIZE, Access
from swiommu.layer import NEUTRAL, Fault, FaultClass, Translation, access
from swiommu.layer.node import as_path
from swiommu.layer.path import Hop, Purpose, Reach, Refused, Trip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.layer import Attributes, Layer, Path, Run

__all__ = ["Glance", "Probe", "glance", "merged", "tell", "tell_glance"]


class Probe(NamedTuple):
    """An access to try: ``size`` bytes from ``start``, for ``access``.

    >>> from swiommu.layer import Identity
    >>> tell(Probe(0x1000, 8).on(Identity("id")))
    '0x1000+0x8 -> 0x1000 READ|WRITE in blocks of 0x10000000000000000; 0 references'
    """

    start: int
    size: int = 1
    access: Access = Access.READ

    def on(self, path: Path | Layer, *, uncached: bool = False, watched: bool = False) -> Translation:
        """What becomes of it on ``path``."""
        return access(path, self.start, self.size, self.access, uncached=uncached, watched=watched)

    def places(self) -> Iterator[int]:
        """Addresses worth a look of their own: the first byte, every page border inside, the last byte."""
        stop = self.start + self.size
        yield self.start
        yield from range((self.start & -PAGE_SIZE) + PAGE_SIZE, stop - 1, PAGE_SIZE)
        if self.size > 1:
            yield stop - 1

    def __str__(self) -> str:
        return f"{_names(self.access)} of {self.size:#x} bytes at {self.start:#x}"


class Glance(NamedTuple):
    """One address on its way: where it leads, or the record of why not; references and steps of the walk."""

    reach: Reach | None
    fault: Fault | None
    refs: int
    hops: tuple[Hop, ...] = ()


def glance(path: Path | Layer, at: int, wanted: Access, *, watched: bool = False, uncached: bool = True) -> Glance:
    """Where one address leads, with the run around it and what each layer said; marks stay as they are.

    >>> from swiommu.layer import Span, Window
    >>> hex(glance(Window("bus", Span(0x1000, 0x1000, 0x4000)), 0x1234, Access.READ).reach.to(0x1234))
    '0x5234'
    """
    trip = Trip(wanted, watched=watched, uncached=uncached)
    trip.begin(at)
    try:
        reach = as_path(path).travel(at, Purpose(int(wanted), FaultClass.DATA), trip, ())
    except Refused as refused:
        return Glance(None, refused.fault, trip.refs, tuple(trip.hops or ()))
    return Glance(reach, None, trip.refs, tuple(trip.hops or ()))


def merged(answer: Translation) -> tuple[Run, ...]:
    """The runs of an answer as T sees them: blocks don't count, so runs that differ in nothing else are one.

    Memories are told apart by their names: equal stacks have each their own.

    >>> from swiommu.layer import Identity
    >>> [run.page_size for run in merged(Probe(0, 16).on(Identity("id")))]
    [0]
    """
    runs: list[Run] = []
    for run in answer.runs:
        plain = run._replace(page_size=0, store=None)
        if runs and (last := runs[-1]).output + last.size == plain.output and last[3:] == plain[3:]:
            runs[-1] = last._replace(size=last.size + plain.size)
        else:
            runs.append(plain)
    return tuple(runs)


def tell(answer: Translation) -> str:
    """An answer in one line, for the report of a broken law.

    >>> from swiommu.layer import Span, Window
    >>> print(tell(Probe(0x1000, 0x2000).on(Window("bus", Span(0, 0x2000, 0x4000)))))  # doctest: +ELLIPSIS
    0x1000+0x1000 -> 0x5000 READ|WRITE in blocks of 0x2000; range fault of READ access at 0x2000 in layer 'bus'; 0 ...
    """
    parts = [
        f"{run.input:#x}+{run.size:#x} -> {run.memory and run.memory + ':'}{run.output:#x} "
        f"{_names(run.prot)}{_memory_type(run.attributes)} in blocks of {run.page_size:#x}"
        for run in answer.runs
    ]
    parts += [] if answer.fault is None else [str(answer.fault)]
    return "; ".join([*parts, f"{answer.refs} references"])


def tell_glance(seen: Glance, at: int) -> str:
    """One address's way in one line.

    >>> from swiommu.layer import Span, Window
    >>> tell_glance(glance(Window("bus", Span(0x1000, 0x1000, 0x4000)), 0x1234, Access.READ), 0x1234)
    '0x5234 in [0x1000, 0x2000), block 0x1000, READ|WRITE, 0 references'
    """
    if seen.reach is None:
        return f"{seen.fault}; {seen.refs} references"
    reach = seen.reach
    where = f"{reach.memory.name}:{reach.to(at):#x}" if reach.memory else f"{reach.to(at):#x}"
    run = f"[{reach.input:#x}, {reach.input + reach.size:#x}), block {reach.block:#x}"
    return f"{where} in {run}, {_names(reach.prot)}{_memory_type(reach.attributes)}, {seen.refs} references"


def _memory_type(attributes: Attributes) -> str:
    # Where somebody on the way has an opinion.
    forced = " (forced)" if attributes.forced else ""
    return "" if attributes == NEUTRAL else f" {attributes.memory_type.name}/{attributes.shareability.name}{forced}"


def _names(flags: Access | object) -> str:
    return str(getattr(flags, "name", None) or "nothing")
