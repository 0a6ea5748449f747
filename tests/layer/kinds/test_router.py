import pytest

from swiommu.address import Access, PhysSpace
from swiommu.errors import AddressInUse, InvalidArgument
from swiommu.layer import (
    Chain,
    Fault,
    FaultKind,
    Identity,
    Memory,
    Node,
    Router,
    Span,
    Window,
    access,
    connect,
    extents,
)
from swiommu.memory import SparseRam

# A GPU's view: 16 MiB of its own memory at 0, the machine's 256 MiB at 256 MiB.
VRAM = Span(0, 0x0100_0000, 0, port=1)
DRAM = Span(0x1000_0000, 0x1000_0000, 0x7000_0000, port=0)


@pytest.fixture
def gpu():
    router = Node(Router("gpu", DRAM, VRAM))
    dram = Memory("dram", SparseRam(PhysSpace("dram", width=32)), base=0x8000_0000, size=0x1000_0000)
    vram = Memory("vram", SparseRam(PhysSpace("vram", width=24)), size=0x00C0_0000)
    router.lowers = [Node(dram), Node(vram)]  # by hand: `connect` refuses a window larger than the memory behind it
    return router


@pytest.mark.parametrize(
    ("at", "memory", "output", "block"),
    [
        (0x10, "vram", 0x10, 0x80_0000),  # 12 MiB: a block of 8 and one of 4
        (0xBF_FFFF, "vram", 0xBF_FFFF, 0x40_0000),
        (0x1000_0000, "dram", 0x8000_0000, 0x1000_0000),
        (0x1FFF_FFFF, "dram", 0x8FFF_FFFF, 0x1000_0000),
    ],
)
def test_the_input_decides_the_memory(gpu, at, memory, output, block):
    [run] = access(gpu, at, 1, Access.WRITE).runs
    assert (run.memory, run.output, run.page_size) == (memory, output, block)


@pytest.mark.parametrize(
    ("at", "layer", "address"),
    [
        (0x00C0_0000, "vram", 0x00C0_0000),  # the window is larger than the memory behind it
        (0x0100_0000, "gpu", 0x0100_0000),
        (0x2000_0000, "gpu", 0x2000_0000),
    ],
)
def test_who_is_to_blame(gpu, at, layer, address):
    assert access(gpu, at, 4, Access.READ).fault == Fault(layer, FaultKind.RANGE, Access.READ, address, at)


def test_a_burst_from_one_memory_into_the_other():
    # Same delta on both sides of the border, and two memories that know the same numbers: still two runs.
    router = Node(Router("split", Span(0, 0x1000), Span(0x1000, 0x1000, port=1), ports=("one", "two")))
    connect(router, *(Node(Memory(name, SparseRam(PhysSpace(name)))) for name in ("one", "two")))
    runs = access(router, 0xFF0, 0x20, Access.READ).runs
    assert [(run.output, run.size, run.memory) for run in runs] == [(0xFF0, 0x10, "one"), (0x1000, 0x10, "two")]
    assert [(piece.size, piece.memory.name) for piece in extents(router)] == [(0x1000, "one"), (0x1000, "two")]


def test_two_routes_meet_again():
    # A diamond: the upper half directly, the lower one through a window, both into the same memory.
    dram = Node(Memory("dram", SparseRam(PhysSpace("dram", width=32))))
    bridge = Node(Window("bridge", Span(0, 0x4000, 0x4000)))
    router = Node(Router("split", Span(0, 0x4000), Span(0x4000, 0x4000, port=1), ports=("far", "near")))
    connect(bridge, dram)
    connect(router, bridge, dram)
    assert [access(router, at, 1, Access.READ).runs[0].output for at in (0x10, 0x4010)] == [0x4010, 0x4010]
    assert [(piece.input, piece.output, piece.size) for piece in extents(router)] == [
        (0, 0x4000, 0x4000),
        (0x4000, 0x4000, 0x4000),
    ]


def test_open_ports_all_lead_to_what_follows():
    chain = Chain(Router("gpu", DRAM, VRAM), Identity("bypass"))
    assert [access(chain, at, 1, Access.READ).runs[0].output for at in (0x20, 0x1000_0020)] == [0x20, 0x8000_0020]


def test_router_that_can_not_be():
    for spans, ports, text in [
        ((VRAM,), ("dram",), "router 'gpu': the window at 0x0 leaves by port 1 of 1"),
        ((Span(0x40, 8, port=-1),), ("dram",), "router 'gpu': the window at 0x40 leaves by port -1 of 1"),
        ((), (), "router 'gpu': ports need names, one each, not []"),
        ((DRAM,), ("a", "a"), "router 'gpu': ports need names, one each, not ['a', 'a']"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            Router("gpu", *spans, ports=ports)
        assert str(caught.value) == text
    with pytest.raises(AddressInUse):
        Router("gpu", DRAM, Span(0x1000_0000, 1, port=1))


def test_it_says_what_it_is(gpu):
    assert gpu.layer.describe() == ("[0x0, 0x1000000) +0x0 to vram, [0x10000000, 0x20000000) +0x70000000 to dram")
