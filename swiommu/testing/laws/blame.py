"""Laws of what is allowed, and of who is blamed where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import Access, Prot
from swiommu.layer import Chain, Extent, Fault, FaultClass, FaultKind, HopKind, Identity, Layer, Node, Walker, meet_prot
from swiommu.layer.attributes import allowed
from swiommu.layer.node import as_path
from swiommu.testing.probes import Probe, glance, tell_glance
from swiommu.testing.stacks import chained
from swiommu.testing.statements import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swiommu.layer import Path, Read

__all__ = ["Without", "attribution", "permission", "taken_off"]

_ACCESSES = (Access.READ, Access.WRITE, Access.EXEC, Access.READ | Access.WRITE)


class Without(Layer):
    """``layer``, allowing less: ``bits`` of READ and WRITE are taken off, of NOEXEC added.

    >>> from swiommu.testing import tell
    >>> print(tell(Probe(0, 1, Access.WRITE).on(Without(Identity("id"), Prot.WRITE))))
    permission fault of WRITE access at 0x0 in layer 'id'; 0 references
    """

    def __init__(self, layer: Layer, bits: Prot) -> None:
        super().__init__(layer.name)
        self.layer = layer
        self.bits = bits
        self.granule, self.space = layer.granule, layer.space
        self.input_width, self.output_width = layer.input_width, layer.output_width
        self.hardware_ad = layer.hardware_ad

    def look(self, at: int, read: Read) -> Extent | FaultKind:
        """As the layer, with less allowed."""
        found = self.layer.look(at, read)
        return found if isinstance(found, FaultKind) else self._less(found)

    def extents(self) -> Iterator[Extent]:
        """As the layer's, with less allowed."""
        return map(self._less, self.layer.extents())

    def stored(self, address: int, width: int) -> int:
        """As the layer."""
        return self.layer.stored(address, width)

    def _less(self, extent: Extent) -> Extent:
        taken = self.bits & (Prot.READ | Prot.WRITE)
        return extent._replace(prot=extent.prot & ~taken | self.bits & Prot.NOEXEC)


def permission(upper: Node | Layer, lower: Node | Layer, probes: Sequence[Probe], prots: Sequence[Prot] = ()) -> None:
    """Law 9: both have to allow, the meet of permissions is a meet, and what is taken off anywhere is gone.

    ``upper`` and ``lower`` are open below; triples of ``prots`` are tried on the meet itself.

    >>> permission(Identity("up"), Identity("down"), [Probe(0x1000)], [Prot.READ, Prot.WRITE, Prot.NOEXEC])
    """
    _meet(prots)
    one, two = _node(upper), _node(lower)
    for at in {at for probe in probes for at in probe.places()}:
        for wanted in _ACCESSES:
            _both_allow(one, two, at, wanted)
    for bit in (Prot.READ, Prot.WRITE, Prot.NOEXEC):
        less = Chain(_on(one, Without(one.layer, bit)), two), Chain(one, _on(two, Without(two.layer, bit)))
        for probe in probes:
            for path in less:
                _never_more(Chain(one, two), path, probe)


def _meet(prots: Sequence[Prot]) -> None:
    for a in prots:
        if allowed(meet_prot(a, a)) != allowed(a):
            raise broken(9, f"{a!r} met with itself allows something else")
        for b in prots:
            ab = meet_prot(a, b)
            if ab != meet_prot(b, a) or allowed(ab) != allowed(a) & allowed(b):
                raise broken(9, f"{a!r} met with {b!r} is {ab!r}")
            for c in prots:
                if meet_prot(ab, c) != meet_prot(a, meet_prot(b, c)):
                    raise broken(9, f"meeting {a!r}, {b!r} and {c!r} depends on the order")


def _both_allow(upper: Node, lower: Node, at: int, wanted: Access) -> None:
    both = glance(Chain(upper, lower), at, wanted)
    if both.reach is None:
        return
    first = glance(upper, at, wanted).reach
    second = None if first is None else glance(lower, first.to(at), wanted).reach
    told = f"{wanted!r} at {at:#x} through f;g: {tell_glance(both, at)}"
    if first is None or second is None:
        raise broken(9, f"{told}, but {'f' if first is None else 'g'} alone refuses")
    if allowed(both.reach.prot) & ~(allowed(first.prot) & allowed(second.prot)):
        raise broken(9, f"{told}, f allows {first.prot!r}, g {second.prot!r}")
    if int(wanted) & ~allowed(both.reach.prot):
        raise broken(9, f"{told}: that is not what was wanted")


def _never_more(path: Path, less: Path, probe: Probe) -> None:
    seen = glance(less, probe.start, probe.access)
    if seen.reach is None:
        return
    before = glance(path, probe.start, probe.access)
    if before.reach is None or before.reach.to(probe.start) != seen.reach.to(probe.start):
        told = f"{tell_glance(before, probe.start)}, with less allowed: {tell_glance(seen, probe.start)}"
        raise broken(9, f"{probe}: {told}")


def taken_off(
    path: Path | Layer, probes: Sequence[Probe], take: Callable[[], object], bits: Prot, below: Sequence[Probe]
) -> None:
    """Law 9, of one table entry: ``take`` takes ``bits`` off all that is ``below`` it, and off nothing else.

    READ and WRITE are taken off, with NOEXEC executing is. What does not lose by it answers as before.

    >>> from swiommu.layer import Paged
    >>> from swiommu.pagetable import CountingTables, RadixTable
    >>> from swiommu.pagetable.formats import vtd_ss
    >>> table = RadixTable(vtd_ss(), CountingTables())
    >>> table.map_run(0x1000, 0x5000, 0x1000, 1, 3)
    >>> step = table.walk(0x1000).steps[0]
    >>> def take():
    ...     table.nodes.memory.entries(step.table)[step.slot] &= ~2
    >>> taken_off(Paged("iommu", table), [Probe(0x1000)], take, Prot.WRITE, [Probe(0x1000)])
    """
    gone = int(bits & (Prot.READ | Prot.WRITE)) | (int(Access.EXEC) if bits & Prot.NOEXEC else 0)
    places = [(probe, wanted) for probe in probes for wanted in (*_ACCESSES, probe.access)]
    before = [glance(path, probe.start, wanted) for probe, wanted in places]
    take()
    for (probe, wanted), old in zip(places, before, strict=True):
        now, at = glance(path, probe.start, wanted), probe.start
        told = (
            f"{wanted!r} at {at:#x}: {tell_glance(old, at)}, without {bits!r} in a table entry: {tell_glance(now, at)}"
        )
        if now.reach is not None and (old.reach is None or (probe in below and int(wanted) & gone)):
            raise broken(9, told)
        if old.reach is not None and not (probe in below and int(wanted) & gone):
            if now.reach is None or now.reach.to(at) != old.reach.to(at):
                raise broken(9, told)
            if probe not in below and now != old:
                raise broken(9, told)


def attribution(nodes: Sequence[Node | Layer], probes: Sequence[Probe]) -> None:
    """Law 10: whoever is blamed for a fault is to blame.

    ``nodes`` are a chain, top first, each open below. With the blamed layer replaced by an identity, the fault is
    gone, or another layer's further down; the layers above it, over an identity, let the access through. Where a table
    read failed, the layer is replaced only for that walker, and it is the layers that the access itself had passed that
    don't refuse.

    >>> attribution([Identity("up", width=32), Identity("down", width=16)], [Probe(0x1000), Probe(0x10000)])
    """
    chain = [_node(node) for node in nodes]
    names = [node.name for node in chain]
    for probe in probes:
        for at in probe.places():
            seen = glance(chained(chain), at, probe.access, watched=True)
            fault = seen.fault
            if fault is None:
                continue
            if fault.iova != at or fault.access != probe.access or fault.layer not in names:
                raise broken(10, f"{probe.access!r} at {at:#x} is recorded as {fault!r}")
            if fault.fault_class is FaultClass.WALK:
                passed = [hop.layer for hop in seen.hops if hop.kind is HopKind.ENTER and not hop.nesting][:-1]
                _walk_blame(chain, names, fault, len(passed))
            else:
                _data_blame(chain, names, fault)


def _data_blame(chain: list[Node], names: list[str], fault: Fault) -> None:
    place = names.index(fault.layer)
    above = [_bound(chain, number) for number in range(place)]
    _upper_pass(above, fault)
    bypass = Node(Identity(fault.layer))
    after = glance(chained([*above, bypass, *chain[place + 1 :]]), fault.iova, fault.access).fault
    if after is not None and (after.layer not in names or names.index(after.layer) <= place):
        raise broken(10, f"{fault}; with {fault.layer!r} out of the way: {after}")


def _walk_blame(chain: list[Node], names: list[str], fault: Fault, passed: int) -> None:
    if fault.walk_of not in names:
        raise broken(10, f"{fault}: no such layer")
    reader, place = names.index(fault.walk_of), names.index(fault.layer)
    if place <= reader:
        raise broken(10, f"{fault}: the table of {fault.walk_of!r} is not read through {fault.layer!r}, which is above")
    bound = [_bound(chain, number) for number in range(place)]
    _upper_pass(bound[:passed], fault)
    inner = [*bound[reader + 1 :], Node(Identity(fault.layer)), *chain[place + 1 :]]
    node = Node(chain[reader].layer, walker=chained(inner))
    after = glance(chained([*chain[:reader], node, *chain[reader + 1 :]]), fault.iova, fault.access).fault
    if after == fault:
        raise broken(10, f"{fault}; it stays with {fault.layer!r} out of the way of that walker")


def _upper_pass(above: list[Node], fault: Fault) -> None:
    if not above:
        return
    seen = glance(chained([*above, Node(Identity("below"))]), fault.iova, fault.access)
    if seen.reach is None:
        raise broken(10, f"{fault}; but above it there is a {seen.fault}")
    if fault.fault_class is FaultClass.DATA and seen.reach.to(fault.iova) != fault.address:
        arrives = f"{seen.reach.to(fault.iova):#x}"
        raise broken(10, f"{fault}, though {fault.iova:#x} arrives there as {arrives}")


def _bound(chain: list[Node], number: int) -> Node:
    # The node with its tables read where they are read now, whatever is put below it.
    node = chain[number]
    if node.walker is not Walker.NESTED or number + 1 == len(chain):
        return node
    return Node(node.layer, walker=chained(chain[number + 1 :]))


def _node(thing: Node | Layer) -> Node:
    path = as_path(thing)
    assert isinstance(path, Node), f"{thing!r} is neither a layer nor a node"
    return path


def _on(node: Node, layer: Layer) -> Node:
    return Node(layer, walker=node.walker)
