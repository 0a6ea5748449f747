"""The printed tree: whole texts, so that what a reader sees is what is tested."""

from swiommu.address import PhysSpace, Prot
from swiommu.layer import (
    Chain,
    Graph,
    Identity,
    Memory,
    Node,
    Paged,
    Reserved,
    Span,
    TranslationCache,
    Walker,
    Window,
    picture,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable


def paged(name):
    return Paged(name, RadixTable(MOCK, CountingTables()))


def ram(name="ram", base=0x8000_0000):
    return Memory(name, SparseRam(PhysSpace(name)), base=base, size=0x4000_0000)


def under(upper, *lowers):
    upper.lowers.extend(lowers)
    for lower in lowers:
        lower.uppers.append(upper)
    return upper


def test_chain_of_three():
    assert picture(Chain(paged("guest"), Chain(paged("host"), ram()))) == (
        "guest      paged   mock, 48 to 52 bits, 0 leaves\n"
        "└─ host    paged   mock, 48 to 52 bits, 0 leaves\n"
        "   └─ ram  memory  [0x80000000, 0xc0000000)"
    )


def test_chains_nest_either_way():
    layers = [Node(Identity(name)) for name in "abc"]
    left = Chain(Chain(layers[0], layers[1]), layers[2])
    right = Chain(layers[0], Chain(layers[1], layers[2]))
    assert picture(left) == picture(right)


def test_what_is_shared_is_drawn_once():
    host = under(Node(paged("host")), Node(ram()))
    one, two = under(Node(paged("vm0")), host), under(Node(paged("vm1"), walker=Walker.PHYSICAL), host)
    assert picture(one, two, width=66) == (
        "vm0        paged   mock, 48 to 52 bits, 0 leaves\n"
        "└─ host    paged   mock, 48 to 52 bits, 0 leaves\n"
        "   └─ ram  memory  [0x80000000, 0xc0000000)\n"
        "vm1        paged   mock, 48 to 52 bits, 0 leaves;\n"
        "│                  tables at physical addresses\n"
        "└─ host    paged   as above"
    )


def test_walker_of_its_own_is_named():
    ram_node = Node(ram())
    walker = Chain(Node(Identity("side")), ram_node)
    assert picture(under(Node(paged("gpu"), walker=walker), ram_node), width=100) == (
        "gpu     paged     mock, 48 to 52 bits, 0 leaves; tables through side\n"
        "└─ ram  memory    [0x80000000, 0xc0000000)\n"
        "side    identity  64-bit input"
    )


def test_long_descriptions_hang_under_the_tree():
    windows = Window("soc", *(Span(at << 28, 1 << 20, 0x8000_0000) for at in range(3)))
    assert picture(Chain(windows, Chain(Identity("bypass"), ram())), width=60) == (
        "soc        window    [0x0, 0x100000) +0x80000000,\n"
        "│                    [0x10000000, 0x10100000) +0x80000000,\n"
        "│                    [0x20000000, 0x20100000) +0x80000000\n"
        "└─ bypass  identity  64-bit input\n"
        "   └─ ram  memory    [0x80000000, 0xc0000000)"
    )


def test_names_can_not_drive_the_terminal():
    assert picture(Window("\x1b[31m\nred\u202e", Span(0, 1))) == "?[31m?red?  window  [0x0, 0x1) +0x0"


def test_own_paths_have_a_place_too():
    class Elsewhere:
        def travel(self, at, why, trip, rest):
            raise NotImplementedError

    assert picture(Chain(Identity("id"), Elsewhere())) == "id            identity  64-bit input\n└─ Elsewhere  path"


def test_tables_are_written_as_they_are():
    layer = paged("s1")
    layer.table.map_run(0, 0, 0x1000, 3, Prot.READ)
    assert picture(layer) == "s1  paged  mock, 48 to 52 bits, 3 leaves"


def test_graphs_and_nodes_show_themselves():
    graph = Graph()
    graph.add(ram())
    node = graph.add(paged("s1"), on="ram", reserved=[Reserved(0x1000, 0x1000, "msi")])
    node.tlb, node.iotlb = TranslationCache(), TranslationCache()
    text = (
        "s1      paged   mock, 48 to 52 bits, 0 leaves; tlb; iotlb;\n"
        "│               msi region [0x1000, 0x2000)\n"
        "└─ ram  memory  [0x80000000, 0xc0000000)"
    )
    assert picture(node, width=76) == text
    assert repr(graph) == repr(node)
    assert repr(Graph()) == "an empty graph"
