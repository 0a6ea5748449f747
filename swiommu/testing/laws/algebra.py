"""Laws of putting one path on another: identity, zero, associativity, pipeline, windows, renaming."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import Access
from swiommu.errors import InvalidArgument
from swiommu.layer import Blocked, Chain, Fault, FaultClass, Identity, Span, Window, meet_prot
from swiommu.testing.probes import Probe, glance, merged, tell, tell_glance
from swiommu.testing.statements import broken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.layer import Layer, Path, Translation

__all__ = ["associativity", "identity", "pipeline", "renaming", "window_algebra", "zero"]


def identity(path: Path | Layer, probes: Sequence[Probe]) -> None:
    """Law 1: a bypass above or below changes nothing: runs, blocks, faults, references.

    >>> identity(Window("bus", Span(0x1000, 0x1000, 0x4000)), [Probe(0x1800, 0x1000)])
    """
    bypass = Identity("bypass of law 1")
    try:
        continued = Chain(path, bypass)
    except InvalidArgument:  # below a memory there is nothing
        continued = None
    for probe in probes:
        alone = probe.on(path)
        _same(1, probe, ("f", alone), ("id;f", probe.on(Chain(bypass, path))))
        if continued is not None and not any(run.memory for run in alone.runs):
            _same(1, probe, ("f", alone), ("f;id", probe.on(continued)))


def zero(path: Path | Layer, probes: Sequence[Probe]) -> None:
    """Law 2: nothing gets through a blocker, above or below an open ``path``, and the blocker is who is blamed.

    Below, a layer of ``path`` that refuses by itself is blamed as it is without the blocker.

    >>> zero(Window("bus", Span(0x1000, 0x1000, 0x4000)), [Probe(0x1800), Probe(0x3000)])
    """
    name = "blocker of law 2"
    for probe in probes:
        above, below = probe.on(Chain(Blocked(name), path)), probe.on(Chain(path, Blocked(name)))
        if above.runs or above.fault is None or above.fault.layer != name:
            raise broken(2, f"{probe} through block;f: {tell(above)}")
        alone = probe.on(path)
        own = alone.fault if not alone.runs else None
        if below.runs or below.fault is None or (below.fault.layer != name and below.fault != own):
            raise broken(2, f"{probe} through f;block: {tell(below)}, f alone: {tell(alone)}")


def associativity(paths: Sequence[Path | Layer], probes: Sequence[Probe], same: Sequence[Path] = ()) -> None:
    """Law 3: however a chain of ``paths`` is put together, it is the same one, step by step; so are all in ``same``.

    >>> windows = [Window(f"w{n}", Span(0x1000 * n, 0x4000, 0x1000)) for n in range(4)]
    >>> associativity(windows, [Probe(0x2000, 0x3000)])
    """
    forms = [*_bracketings(list(paths)), *same]
    first, others = forms[0], forms[1:]
    for probe in probes:
        wanted = probe.on(first, watched=True)
        for other in others:
            _same(3, probe, ("one bracketing", wanted), ("another", probe.on(other, watched=True)))
        one = glance(first, probe.start, probe.access)
        for other in others:
            twin = glance(other, probe.start, probe.access)
            if one != twin:
                told = f"{tell_glance(one, probe.start)} | {tell_glance(twin, probe.start)}"
                raise broken(3, f"extents at {probe.start:#x} depend on the bracketing: {told}")


def _bracketings(paths: list[Path | Layer]) -> Iterator[Path | Layer]:
    if len(paths) == 1:
        yield paths[0]
    for cut in range(1, len(paths)):
        for upper in _bracketings(paths[:cut]):
            for lower in _bracketings(paths[cut:]):
                yield Chain(upper, lower)


def pipeline(upper: Path | Layer, lower: Path | Layer, probes: Sequence[Probe]) -> None:
    """Law 4: ``upper`` above ``lower`` is one after the other, with permissions and attributes met.

    ``upper`` has to be open below. Where it reads tables through ``lower``, such a read may fail; nothing else may.

    >>> pipeline(Window("up", Span(0, 0x2000, 0x4000)), Window("down", Span(0x5000, 0x1000)), [Probe(0x800, 0x1000)])
    """
    both = Chain(upper, lower)
    for probe in probes:
        for at in probe.places():
            _step_by_step(both, upper, lower, at, probe.access)


def _step_by_step(both: Path, upper: Path | Layer, lower: Path | Layer, at: int, wanted: Access) -> None:
    seen, first = glance(both, at, wanted), glance(upper, at, wanted)
    if seen.fault is not None and seen.fault.fault_class is FaultClass.WALK:
        return
    if first.reach is None:
        if seen.fault != first.fault:
            raise broken(4, f"at {at:#x} f: {tell_glance(first, at)}, f;g: {tell_glance(seen, at)}")
        return
    middle = first.reach.to(at)
    second = glance(lower, middle, wanted)
    told = f"at {at:#x} f: {tell_glance(first, at)}; g: {tell_glance(second, middle)}; f;g: {tell_glance(seen, at)}"
    if seen.reach is None or second.reach is None:
        if _who(seen.fault) != _who(second.fault):
            raise broken(4, told)
        return
    one, two, got = first.reach, second.reach, seen.reach
    if (got.to(at), got.memory) != (two.to(middle), two.memory):
        raise broken(4, f"addresses differ {told}")
    if (got.prot, got.attributes) != (meet_prot(one.prot, two.prot), one.attributes.then(two.attributes)):
        raise broken(4, f"what is allowed differs {told}, attributes {one.attributes}, {two.attributes}")
    if got.block != min(one.block, two.block) or not 0 <= at - got.input < got.size:
        raise broken(4, f"blocks or extents differ {told}")


def window_algebra(base: int, size: int, deltas: tuple[int, int], lower: tuple[int, int]) -> None:
    """Law 7: two windows are one, with the sum of their ``deltas``, where both reach; opposite ones are none.

    The upper window is ``size`` bytes at ``base``, the ``lower`` one (base, size). Both ends of what they share are
    looked at, and the bytes around them.

    >>> window_algebra(0x1000, 0x4000, (0x800, -0x200), (0x2000, 0x1000))
    """
    one, two = deltas
    start, stop = max(base, lower[0] - one), min(base + size, lower[0] + lower[1] - one)
    both = Chain(Window("d1", Span(base, size, one)), Window("d2", Span(lower[0], lower[1], two)))
    for at in {base - 1, base, base + size - 1, base + size, start - 1, start, stop - 1, stop, (start + stop) // 2}:
        if at < 0:
            continue
        seen = glance(both, at, Access.WRITE)
        told = f"{at:#x} by {one:#x}, then {two:#x}: {tell_glance(seen, at)}; shared [{start:#x}, {stop:#x})"
        if (seen.reach is not None) != (start <= at < stop):
            raise broken(7, told)
        if seen.reach is None:
            continue
        sole = glance(Window("d1+d2", Span(start, stop - start, one + two)), at, Access.WRITE).reach
        if sole is None or sole[:3] != seen.reach[:3] or sole.prot != seen.reach.prot:
            raise broken(7, told)
    there_and_back = Chain(Window("d", Span(base, size, one)), Window("-d", Span(base + one, size, -one)))
    for at in (base, base + size // 2, base + size - 1):
        back = glance(there_and_back, at, Access.READ)
        if back.reach is None or back.reach.to(at) != at or back.reach[0:3:2] != (base, size):
            raise broken(7, f"{at:#x} by {one:#x} and back: {tell_glance(back, at)}")


def renaming(path: Path | Layer, renamed: Path | Layer, probes: Sequence[Probe]) -> None:
    """Law 22: ``renamed`` is ``path`` with intermediate spaces shifted; nobody at the top can tell.

    Addresses in fault records of inner layers are those of the shifted spaces, and are not compared.

    >>> pair = [Chain(Window("a", Span(0, 64, at)), Window("b", Span(at, 32, 8 - at))) for at in (0x1000, 0x5000)]
    >>> renaming(*pair, [Probe(0, 64)])
    """
    for probe in probes:
        one, other = probe.on(path), probe.on(renamed)
        if (merged(one), one.refs, _who(one.fault)) != (merged(other), other.refs, _who(other.fault)):
            raise broken(22, f"{probe}: {tell(one)} | renamed: {tell(other)}")


def _who(fault: Fault | None) -> object:
    # What of a fault does not depend on where the space lies that it happened in, nor on who sent the address there.
    return fault and (fault.layer, fault.kind, fault.access, fault.fault_class, fault.walk_of, fault.implicit_write)


def _same(number: int, probe: Probe, one: tuple[str, Translation], other: tuple[str, Translation]) -> None:
    if one[1] != other[1]:
        raise broken(number, f"{probe} through {one[0]}: {tell(one[1])} | through {other[0]}: {tell(other[1])}")
