"""Laws of several devices over one memory: what one can do to another, and what both see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from swiommu.address import BusAddr
from swiommu.testing.probes import Probe, glance, tell_glance
from swiommu.testing.statements import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.iommu import Domain

__all__ = ["Accessor", "duplication", "isolation"]


class Accessor(Protocol):
    """Who reads and writes by bus address, such as a `swiommu.device.BusDevice`."""

    name: str

    def read(self, addr: BusAddr, size: int) -> bytes:
        """``size`` bytes from ``addr``."""
        ...

    def write(self, addr: BusAddr, data: bytes) -> None:
        """Put ``data`` at ``addr``."""
        ...


def isolation(
    offender: Domain[Any],
    victim: Domain[Any],
    probes: Sequence[Probe],
    operations: Sequence[Callable[[], object]],
    held: Callable[[], object],
) -> None:
    """Law 12: ``operations`` of the offender's side change nothing of the victim's: answers, or what it ``held()``.

    ``held`` tells the victim's bytes and table pages; the two map disjoint memory. An offender that doesn't enforce
    (a linear domain) keeps only the half that software keeps, the victim's record: its device reaches all of the
    window, so that bytes and tables in it are at its mercy.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram")
    >>> frames = Frames(ram.at(0), 1 << 20)
    >>> one, two = (PagedDomain(BusSpace(name), frames=frames, output_space=ram) for name in ("one", "two"))
    >>> mapping = two.alloc(0x2000)
    >>> start = mapping.iova.start.value
    >>> isolation(one, two, [Probe(start, 0x2000)], [lambda: one.alloc(0x3000)], two.mappings)
    """
    places = {(at, probe.access) for probe in probes for at in probe.places()}
    answers = {place: glance(victim.node, *place) for place in places}
    record = {at: _record(victim, at) for at, _ in places}
    before = held()
    for number, operation in enumerate(operations, 1):
        operation()
        did = f"operation {number} of the device in {offender.input_space.name!r}"
        for at, said in record.items():
            if _record(victim, at) != said:
                raise broken(12, f"{did} changed {at:#x} of {victim.input_space.name!r}: {said} was said")
        if not offender.enforces:
            continue
        for place, old in answers.items():
            now = glance(victim.node, *place)
            if now != old:
                told = f"{tell_glance(old, place[0])} before, {tell_glance(now, place[0])} after"
                raise broken(12, f"{did} changed {place[0]:#x} of {victim.input_space.name!r}: {told}")
        if (after := held()) != before:
            raise broken(
                12, f"{did} changed what {victim.input_space.name!r} holds: {before!r} before, {after!r} after"
            )


def _record(domain: Domain[Any], at: int) -> int | None:
    said = domain.iova_to_phys(BusAddr(domain.input_space, at)) if at < domain.input_space.limit else None
    return None if said is None else int(said.value)


def duplication(writer: Accessor, at: BusAddr, reader: Accessor, there: BusAddr, data: bytes) -> None:
    """Law 23: what one top writes where both map the same memory, the other reads.

    >>> from swiommu.address import BusSpace, PhysRange, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram = PhysSpace("ram", width=32)
    >>> frames, bytes_ = Frames(ram.at(0), 1 << 20), SparseRam(ram)
    >>> page, sides = PhysRange(ram.at(0x8_0000), 0x1000), []
    >>> for name in ("one", "two"):
    ...     device, domain = BusDevice(name, bytes_), PagedDomain(BusSpace(name), frames=frames, output_space=ram)
    ...     domain.attach(device)
    ...     sides += [device, domain.bind([page]).iova.start]
    >>> duplication(*sides, b"frame")
    """
    writer.write(at, data)
    seen = reader.read(there, len(data))
    if seen != data:
        raise broken(23, f"{writer.name!r} wrote {data!r} at {at!r}, {reader.name!r} reads {seen!r} at {there!r}")
