"""Random small ways down for the tests of what holds for all of them: a universe of 16 pages, every kind of layer."""

from hypothesis import strategies as st

from swiommu.address import PhysSpace, Prot
from swiommu.layer import Chain, FlatTable, Identity, Memory, Node, Paged, Router, Span, Walker, Window
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable

PAGE = 0x1000
PAGES = 16
PROTS = [
    Prot.READ | Prot.WRITE,
    Prot.READ,
    Prot.WRITE,
    Prot.READ | Prot.WRITE | Prot.NOEXEC,
    Prot.READ | Prot.CACHE,
    Prot.READ | Prot.WRITE | Prot.MMIO | Prot.PRIV,
]

page_maps = st.dictionaries(
    st.integers(0, PAGES - 1), st.tuples(st.integers(0, PAGES - 1), st.sampled_from(PROTS)), max_size=PAGES
)


def spans(unit, ports=1):
    """Windows with borders and deltas in units of so many bytes, apart from each other."""
    count = PAGES * PAGE // unit

    def build(drawn):
        found, at = [], 0
        for gap, longest, output, port in drawn:
            base = at + gap
            size = min(longest, count - base, count - output)
            if size > 0:
                found.append(Span(base * unit, size * unit, (output - base) * unit, port))
                at = base + size
        return found

    one = st.tuples(
        st.integers(0, count // 4), st.integers(1, count), st.integers(0, count - 1), st.integers(0, ports - 1)
    )
    return st.lists(one, max_size=3).map(build)


def paged(name, pages, **options):
    table = RadixTable(MOCK, CountingTables())
    for page, (to, prot) in pages.items():
        table.map_run(page * PAGE, to * PAGE, PAGE, 1, prot)
    return Paged(name, table, **options)


def flat(name, pages):
    table = FlatTable(name, base=0, size=PAGES * PAGE, table=0)
    for page, (to, prot) in pages.items():
        table.map(page * PAGE, to * PAGE, PAGE, coherent=bool(prot & Prot.CACHE))
    return table


@st.composite
def layers(draw, name, unit):
    """Any layer with one way out."""
    kind = draw(st.sampled_from(["paged", "paged", "flat", "window", "identity"]))
    if kind == "paged":
        return paged(name, draw(page_maps), force_write_back=draw(st.booleans()))
    if kind == "flat":
        return flat(name, draw(page_maps))
    return Window(name, *draw(spans(unit))) if kind == "window" else Identity(name)


@st.composite
def ways(draw, unit=PAGE, walkers=tuple(Walker)):
    """One to three layers, then an open end, a memory, or a router with two memories."""
    count = draw(st.integers(1, 3))
    path = draw(st.sampled_from(["open", "memory", "router"]))
    if path == "open":
        below = None
    elif path == "memory":
        below = Node(memory("dram", draw(st.integers(1, PAGES)) * PAGE))
    else:
        below = Node(Router("split", *draw(spans(unit, 2))))
        below.lowers = [Node(memory("dram", 12 * PAGE)), Node(memory("vram", 12 * PAGE))]
    for place in reversed(range(count)):
        layer = draw(layers(f"s{place + 1}", unit))
        node = Node(layer, walker=draw(st.sampled_from(walkers)))
        below = node if below is None else Chain(node, below)
    return below


def memory(name, size):
    return Memory(name, SparseRam(PhysSpace(name, width=32)), size=size)


def stages_of(path):
    """The layers of a way, top first."""
    if isinstance(path, Chain):
        return [path.upper.layer, *stages_of(path.lower)]
    return [path.layer]
