"""Laws of mapping and unmapping: what changes, what stays, and that neither order nor size of the calls matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.address import BusAddr
from swiommu.layer import FaultKind
from swiommu.testing.probes import Glance, Probe, glance, merged, tell, tell_glance
from swiommu.testing.statements import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.address import Access
    from swiommu.iommu import Domain
    from swiommu.layer import Fault, Layer, Path

__all__ = ["monotonicity", "order_independence", "round_trip", "split_merge"]


def monotonicity(
    path: Path | Layer,
    probes: Sequence[Probe],
    add: Callable[[], object],
    remove: Callable[[], object],
    *,
    layer: str,
    state: Callable[[], object] = lambda: None,
) -> None:
    """Law 8: ``add`` maps an empty range of ``layer``, ``remove`` unmaps it; what worked works as before.

    What failed may fail otherwise, or succeed, only where ``layer`` had refused for want of a mapping; after
    ``remove`` every answer is the first one again, and so is ``state()``, such as the bytes of the tables.

    >>> from swiommu.layer import Paged
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> add, remove = lambda: table.map_run(0x1000, 0x5000, 0x1000, 2, 3), lambda: table.unmap(0x1000, 0x2000)
    >>> monotonicity(Paged("iommu", table), [Probe(0x1000), Probe(0x3000)], add, remove, layer="iommu")
    """
    places = {(at, probe.access) for probe in probes for at in probe.places()}
    before = {place: glance(path, *place) for place in places}
    held = state()
    add()
    for place, old in before.items():
        _only_more(place[0], old, glance(path, *place), layer)
    remove()
    for place, old in before.items():
        now = glance(path, *place)
        if now != old:
            told = f"{tell_glance(old, place[0])} before, {tell_glance(now, place[0])} after"
            raise broken(8, f"map and unmap in {layer!r} changed {place[0]:#x}: {told}")
    if state() != held:
        raise broken(8, f"map and unmap in {layer!r} left something behind: {held!r} was {state()!r}")


def _only_more(at: int, old: Glance, now: Glance, layer: str) -> None:
    told = f"a new mapping in {layer!r} changed {at:#x}: {tell_glance(old, at)} before, {tell_glance(now, at)} after"
    if old.reach is not None:
        same = now.reach is not None and _value(now, at) == _value(old, at)
        if not same or now.refs != old.refs:
            raise broken(8, told)
        return
    missing = old.fault is not None and old.fault.layer == layer and old.fault.kind is FaultKind.TRANSLATION
    if not missing and (now.fault, now.refs) != (old.fault, old.refs):
        raise broken(8, told)


def _value(seen: Glance, at: int) -> object:
    reach = seen.reach
    return reach and (reach.to(at), reach.prot, reach.attributes, reach.block, reach.memory)


def split_merge(whole: Path | Layer, pieces: Path | Layer, probes: Sequence[Probe]) -> None:
    """Law 14: ``whole`` was mapped in one call, ``pieces`` the same granule by granule: T is the same.

    Leaves may differ in size, and with them blocks and references.

    >>> from swiommu.layer import Paged
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> tables = [RadixTable(MOCK, CountingTables()) for _ in range(2)]
    >>> tables[0].map_run(0x1000, 0x5000, 0x1000, 2, 3)
    >>> for at in (0x1000, 0x2000):
    ...     tables[1].map_run(at, at + 0x4000, 0x1000, 1, 3)
    >>> split_merge(*(Paged("iommu", table) for table in tables), [Probe(0x1800, 0x1000)])
    """
    _same_function(14, ("in one call", whole), ("piece by piece", pieces), probes)


def order_independence(one: Path | Layer, other: Path | Layer, probes: Sequence[Probe]) -> None:
    """Law 19: the same maps, none of which touches another, in two orders: T is the same.

    >>> from swiommu.layer import Paged
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> maps = (0x1000, 0x9000), (0x200000, 0x5000)
    >>> tables = [RadixTable(MOCK, CountingTables()) for _ in range(2)]
    >>> for table, order in zip(tables, (maps, reversed(maps))):
    ...     for iova, paddr in order:
    ...         table.map_run(iova, paddr, 0x1000, 1, 3)
    >>> order_independence(*(Paged("iommu", table) for table in tables), [Probe(0x1000), Probe(0x200000)])
    """
    _same_function(19, ("in one order", one), ("in another", other), probes)


def _same_function(
    number: int, one: tuple[str, Path | Layer], other: tuple[str, Path | Layer], probes: Sequence[Probe]
) -> None:
    for probe in probes:
        first, second = probe.on(one[1]), probe.on(other[1])
        if (merged(first), _who(first.fault)) != (merged(second), _who(second.fault)):
            raise broken(number, f"{probe}, mapped {one[0]}: {tell(first)} | mapped {other[0]}: {tell(second)}")


def _who(fault: Fault | None) -> object:
    # Tables may lie elsewhere, so the address of a failed table read does not count.
    return fault and (fault.layer, fault.kind, fault.iova, fault.access, fault.fault_class, fault.walk_of)


def round_trip(domain: Domain[Any], probes: Sequence[Probe]) -> None:
    """Law 21: what ``domain.iova_to_phys`` says is where an access that is permitted goes in the domain's own layer.

    And what ``iova_to_memory`` says is where it goes in the end, through all that is below.

    Where it says None, nothing gets through. A domain that doesn't enforce keeps the law one way only: what its record
    says is true, but a device reaches more.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram, bus = PhysSpace("ram"), BusSpace("bus", width=32)
    >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x1000)
    >>> round_trip(domain, [Probe(0x8123), Probe(0x9000)])
    """
    layer = domain.node.layer
    for probe in probes:
        for at in probe.places():
            if at >= domain.input_space.limit:
                continue
            said, seen = domain.iova_to_phys(BusAddr(domain.input_space, at)), glance(layer, at, probe.access)
            told = f"{at:#x} is at {said!r} by iova_to_phys, by translation {tell_glance(seen, at)}"
            if said is None:
                if seen.reach is not None and domain.enforces:
                    raise broken(21, told)
            elif said.space is not domain.output_space:
                raise broken(21, f"{told}; the output space is {domain.output_space!r}")
            elif seen.reach is None:
                if seen.fault is None or seen.fault.kind is not FaultKind.PERMISSION:
                    raise broken(21, told)
            elif seen.reach.to(at) != said.value:
                raise broken(21, told)
            _all_the_way(domain, at, probe.access)


def _all_the_way(domain: Domain[Any], at: int, wanted: Access) -> None:
    # The same through all domains below, by their records and by the walks of the whole stack.
    said, seen = domain.iova_to_memory(BusAddr(domain.input_space, at)), glance(domain.node, at, wanted)
    told = f"{at:#x} is at {said!r} by iova_to_memory, by translation {tell_glance(seen, at)}"
    if seen.reach is None:
        if said is not None and (seen.fault is None or seen.fault.kind is not FaultKind.PERMISSION):
            raise broken(21, told)
    elif said is not None:
        if seen.reach.to(at) != said.value:
            raise broken(21, told)
    elif _enforced(domain):
        raise broken(21, told)


def _enforced(domain: Domain[Any]) -> bool:
    return domain.enforces and (domain.below is None or _enforced(domain.below))
