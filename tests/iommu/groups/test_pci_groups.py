"""A.4: which devices PCI can't tell apart."""

import pytest

from swiommu.errors import InvalidArgument
from swiommu.iommu.groups import PciBus, PciFunction, PciKind, existing_group

RP, UP, DOWN = PciKind.ROOT_PORT, PciKind.UPSTREAM, PciKind.DOWNSTREAM


def switch(*, acs_below=True, acs_root=True):
    """A root port, and under it a switch with two ports and an endpoint behind each."""
    root = PciBus(0)
    port = PciFunction(root, 1, kind=RP, acs=acs_root)
    upstream = PciFunction(PciBus(1, port), 0, kind=UP)
    inside = PciBus(2, upstream)
    downs = [PciFunction(inside, slot, kind=DOWN, acs=acs_below) for slot in (0, 1)]
    ends = [PciFunction(PciBus(3 + slot, down), 0) for slot, down in enumerate(downs)]
    return port, upstream, downs, ends


def groups_of(machine, functions):
    host = machine(grouping="pci")
    return [host.probe(str(function), pci=function)[1].id for function in functions]


def test_isolated_paths_give_a_group_each(machine):
    port, upstream, downs, ends = switch()
    assert groups_of(machine, [port, upstream, *downs, *ends]) == [0, 1, 2, 3, 4, 5]


def test_without_acs_in_the_switch_all_below_are_one(machine):
    """The way goes up to the first bridge from where on the path is isolated."""
    port, upstream, downs, ends = switch(acs_below=False)
    numbers = groups_of(machine, [port, upstream, *downs, *ends])
    # Each downstream port is below the upstream port, which is isolated to the root: a group of its own; an endpoint
    # joins the port above it.
    assert numbers == [0, 1, 2, 3, 2, 3]


def test_without_acs_at_the_root_everything_joins_the_port(machine):
    port, upstream, downs, ends = switch(acs_root=False)
    assert groups_of(machine, [port, upstream, *downs, *ends]) == [0] * 6


def test_the_alias_of_a_bridge_is_shared_by_all_behind_it(machine):
    root = PciBus(0)
    bridge = PciFunction(root, 3, kind=PciKind.PCIE_TO_PCI)
    behind = PciBus(1, bridge)
    cards = [PciFunction(behind, slot, kind=PciKind.CONVENTIONAL) for slot in (0, 4)]
    assert groups_of(machine, [bridge, *cards]) == [0, 0, 0]
    assert [str(alias) for alias in cards[0].dma_aliases()] == ["0000:01:00.0", "0000:00:03.0"]


def test_ports_add_no_alias():
    *_, ends = switch()
    assert list(ends[0].dma_aliases()) == [ends[0]]


@pytest.mark.parametrize("first", [0, 1])
def test_an_alias_on_the_same_bus_goes_both_ways(machine, first):
    bus = PciBus(0)
    broken = PciFunction(bus, 2, 0, aliases=[(2, 1)])
    other = PciFunction(bus, 2, 1)
    pair = [broken, other]
    assert groups_of(machine, [pair[first], pair[1 - first]]) == [0, 0]


def test_a_function_that_uses_anothers_requester_id(machine):
    bus = PciBus(0)
    one = PciFunction(bus, 2)
    two = PciFunction(bus, 3, real_dma=one)
    assert groups_of(machine, [one, two]) == [0, 0]


@pytest.mark.parametrize(
    ("acs", "expected"), [((False, False), [0, 0]), ((True, True), [0, 1]), ((True, False), [0, 1])], ids=str
)
def test_functions_of_a_slot(machine, acs, expected):
    bus = PciBus(0)
    functions = [PciFunction(bus, 2, number, multifunction=True, acs=each) for number, each in enumerate(acs)]
    assert groups_of(machine, functions) == expected


def test_other_slots_and_single_functions_are_apart(machine):
    bus = PciBus(0)
    functions = [PciFunction(bus, 2, 0, multifunction=True), PciFunction(bus, 3, 0, multifunction=True)]
    assert groups_of(machine, [*functions, PciFunction(bus, 4)]) == [0, 1, 2]


def test_the_order_of_the_rules():
    """An alias on the way is asked before the way up, that before aliases on the bus, those before the slot."""
    root = PciBus(0)
    port = PciFunction(root, 1, kind=RP)
    bridge = PciFunction(PciBus(1, port), 0, kind=PciKind.PCIE_TO_PCI)
    card = PciFunction(PciBus(2, bridge), 0, kind=PciKind.CONVENTIONAL)
    assert existing_group(card) is None
    port.group = "way up"
    assert existing_group(card) == "way up"
    bridge.group = "alias"
    assert existing_group(card) == "alias"
    bus = PciBus(5)
    functions = [PciFunction(bus, 2, n, multifunction=True, aliases=[(7, 0)] if n == 0 else []) for n in (0, 1)]
    functions[1].group = "slot"
    assert existing_group(functions[0]) == "slot"
    PciFunction(bus, 7).group = "alias on the bus"
    assert existing_group(functions[0]) == "alias on the bus"


def test_aliases_in_a_ring_end():
    bus = PciBus(0)
    ring = [PciFunction(bus, slot, aliases=[((slot + 1) % 3, 0)]) for slot in range(3)]
    assert existing_group(ring[0]) is None
    ring[2].group = "found"
    assert existing_group(ring[0]) == "found"


@pytest.mark.parametrize(
    ("kind", "plain", "with_acs", "multi"),
    [
        (PciKind.ENDPOINT, True, True, False),
        (RP, False, True, False),
        (UP, True, True, False),
        (DOWN, False, True, False),
        (PciKind.PCIE_TO_PCI, False, False, False),
        (PciKind.PCI_TO_PCIE, False, False, False),
        (PciKind.CONVENTIONAL, False, False, False),
    ],
    ids=lambda value: value.name if isinstance(value, PciKind) else "",
)
def test_who_is_isolated(kind, plain, with_acs, multi):
    bus = PciBus(0)
    assert PciFunction(bus, 0, kind=kind).is_isolated is plain
    assert PciFunction(bus, 1, kind=kind, acs=True).is_isolated is with_acs
    assert PciFunction(bus, 2, kind=kind, multifunction=True).is_isolated is multi


def test_places_that_cannot_be(refused):
    bus = PciBus(0)
    PciFunction(bus, 3)
    assert refused(InvalidArgument, PciFunction, bus, 3) == "there is a function 0000:00:03.0 already"
    assert refused(InvalidArgument, PciFunction, bus, 32) == (
        "no function 0 in slot 32 can be: slots are 0 to 31, functions 0 to 7"
    )
    assert len(bus.functions) == 1


def test_a_pci_iommu_wants_functions(machine, refused):
    host = machine(grouping="pci")
    assert refused(InvalidArgument, host.probe, "uart") == (
        "device 'uart' is no PCI function, as Hardware('smmu') groups them"
    )


def test_a_group_is_behind_one_iommu(machine, refused):
    one, two = machine(grouping="pci"), machine(grouping="pci")
    bus = PciBus(0)
    functions = [PciFunction(bus, 2, number, multifunction=True) for number in (0, 1)]
    one.probe("first", pci=functions[0])
    assert refused(InvalidArgument, one.core.probe, one.device("second"), two.hardware, pci=functions[1]) == (
        "device 'second' belongs to group 0, behind Hardware('smmu')"
    )
