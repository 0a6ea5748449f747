import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysRange, PhysSpace
from swiommu.errors import Busy, InvalidArgument, NoMemory, NoSpace
from swiommu.region.mainline import AreaPlan, BootMemory, declare_area, plan_command_line

M, G = 1 << 20, 1 << 30
LEFT = "the largest free range has 0x3ffff000 bytes at 0x40001000"


def machine(*ram, nodes=(), **options):
    space = PhysSpace("ram")
    ranges = ram or ((1 * G, 1 * G),)
    return BootMemory([PhysRange(space.at(start), size) for start, size in ranges], nodes=nodes, **options)


def planned(text, **options):
    plan = plan_command_line(text, **options)
    return [(area.name, area.size, area.base, area.limit, area.fixed) for area in plan.areas]


@pytest.mark.parametrize(
    ("text", "areas"),
    [
        ("", []),
        ("cma=64M", [("reserved", 64 * M, 0, 0, False)]),
        ("cma=64M@1G", [("reserved", 64 * M, G, G + 64 * M, True)]),
        ("cma=64M@1G-2G", [("reserved", 64 * M, G, 2 * G, False)]),
        ("cma=1G@1G-2G", [("reserved", G, G, 2 * G, True)]),  # it just fits: there is one place
        ("cma=64M@0-1G", [("reserved", 64 * M, 0, G, False)]),
        ("cma=0x4000000", [("reserved", 64 * M, 0, 0, False)]),
        ("cma=0100k", [("reserved", 64 << 10, 0, 0, False)]),
        ("cma=0", []),
        ("cma=64M cma=0", []),
        ("cma=1M@1G cma=64M", [("reserved", 64 * M, G, G + M, False)]),  # base and limit stay from before
        ("cma=18446744073709551617", [("reserved", 1, 0, 0, False)]),
        ("cma_pernuma=16M", [("pernuma0", 16 * M, 0, 0, False)]),
        ("cma-pernuma=16M", [("pernuma0", 16 * M, 0, 0, False)]),
        ('"cma=64M" x="a cma=1M"', [("reserved", 64 * M, 0, 0, False)]),
        ("-- cma=64M", []),
        ("numa_cma=0:16M cma=8M", [("numa0", 16 * M, 0, 0, False), ("reserved", 8 * M, 0, 0, False)]),
        ("hugetlb_cma=1G", [("hugetlb0", G, 0, 0, False)]),
        ("hugetlb_cma=1G hugetlb_cma_only=1", [("hugetlb0", G, 0, 0, False)]),
        ("hugetlb_cma=1500M", [("hugetlb0", 2 * G, 0, 0, False)]),
        ("hugetlb_cma=0:1G,2G", []),  # the second is read as the whole value once more: 0
        ("cma=" + "8" * 5000, [("reserved", 8 * (10**5000 - 1) // 9 % 2**64, 0, 0, False)]),
    ],
)
def test_command_lines(text, areas):
    assert planned(text) == areas


def test_huge_pages_are_spread_over_nodes():
    def huge(text, nodes):
        return [(each.name, each.size // G) for each in plan_command_line(text, nodes=nodes).areas]

    assert huge("hugetlb_cma=3G", (0, 1, 2, 3)) == [("hugetlb0", 1), ("hugetlb1", 1), ("hugetlb2", 1)]
    assert huge("hugetlb_cma=5G", (0, 1)) == [("hugetlb0", 3), ("hugetlb1", 2)]
    assert huge("hugetlb_cma=1:2G,0:1G", (0, 1)) == [("hugetlb0", 1), ("hugetlb1", 2)]
    (area,) = plan_command_line("hugetlb_cma=1G").areas
    assert (area.alignment, area.order_per_bit, area.several) == (G, 9, True)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("cma", ["cma=: no value is given"]),
        ("cma=64Mx@1", ["cma=: 'x@1' is ignored, the size is 67,108,864 bytes"]),
        ("cma=64M@1G-2G-3G", ["cma=: '-3G' is ignored, the size is 67,108,864 bytes"]),
        ("cma=x", ["cma=: 'x' is ignored, the size is 0 bytes"]),
        ("numa_cma=64M", ["numa_cma=: '64M' is ignored"]),
        ("numa_cma=0:1M;1:1M", ["numa_cma=: ';1:1M' is ignored"]),
        ("numa_cma=9999:1M", ["numa_cma=: node 9999 is beyond 1023", "numa_cma=: '9999:1M' is ignored"]),
        ("numa_cma=3:1M", ["numa_cma=: node 3 is not there"]),
        ("hugetlb_cma=3:1G", ["hugetlb_cma=: node 3 is not there"]),
        ("hugetlb_cma=1Gx", ["hugetlb_cma=: 'x' is ignored"]),
        ("hugetlb_cma=0:1G,x", ["hugetlb_cma=: 'x' is ignored"]),
        ("hugetlb_cma=512M", ["hugetlb_cma=: the area must have at least 1024 MiB"]),
        ("hugetlb_cma=0:512M", ["hugetlb_cma=: the area of node 0 must have at least 1024 MiB"]),
    ],
)
def test_what_is_refused_or_ignored(text, sentences):
    plan = plan_command_line(text)
    assert [str(each) for each in plan.refused] == sentences
    assert [each.errno for each in plan.refused] == [22 if text == "cma" else 0] * len(sentences)


def test_whether_cma_was_given():
    assert [plan_command_line(text).cma_given for text in ("", "cma", "cma=0", "cma=1M", "numa_cma=0:1M")] == [
        False,
        False,
        True,
        True,
        False,
    ]


@given(st.text('cmahugetlb_=0123456789xKMG@-:,% "\0\u0665', max_size=60))
def test_any_text_is_read(text):
    for prefix in ("", "cma=", "numa_cma=", "hugetlb_cma="):
        plan_command_line(prefix + text, nodes=(0, 1))


def test_the_platforms_limit():
    assert planned("cma=64M", limit=2 * G) == [("reserved", 64 * M, 0, 2 * G, False)]
    assert planned("cma=64M@1G-3G", limit=2 * G) == [("reserved", 64 * M, G, 2 * G, False)]


# Recorded on arm64, Linux 6.12, 1 GiB of RAM at 1 GiB: what was reserved before ends somewhere above 0xbda00000.
@pytest.mark.parametrize(("size", "base"), [(64, 0xB9A0_0000), (128, 0xB5A0_0000), (256, 0xADA0_0000)])
def test_places_as_recorded(size, base):
    memory = machine((0x4000_0000, 2 * G))
    memory.reserve(0xBDA0_0000 + 0x1F_F000, 0xC000_0000 - 0xBDA0_0000 - 0x1F_F000)
    (plan,) = plan_command_line(f"cma={size}M").areas
    assert plan.declare(memory).allocator.start == base


def test_where_areas_lie():
    assert declare_area(machine(), 1) == ((2 * G - 2 * M, 2 * M),)
    assert declare_area(machine((G, G), (4 * G, G)), 8 * M) == ((4 * G, 8 * M),)
    assert declare_area(machine((G, G), (4 * G, G)), 8 * M, limit=2 * G) == ((2 * G - 8 * M, 8 * M),)
    assert declare_area(machine((G, G), (3 * G, G), nodes=(0, 1)), 8 * M, node=0) == ((2 * G - 8 * M, 8 * M),)
    assert declare_area(machine(), 8 * M, base=G + 1, fixed=False) == ((2 * G - 8 * M, 8 * M),)
    assert declare_area(machine(), 8 * M, base=G + 2 * M, fixed=True) == ((G + 2 * M, 8 * M),)
    high = machine((M * 16, 2 * G), highmem=896 * M)
    assert declare_area(high, 8 * M) == ((2 * G + 8 * M, 8 * M),)
    assert declare_area(high, 8 * M, limit=512 * M) == ((504 * M, 8 * M),)


@pytest.mark.parametrize(
    ("error", "options", "sentence"),
    [
        (InvalidArgument, {"size": 0}, "an area of 0 bytes aligned to 0 can't be"),
        (InvalidArgument, {"size": M, "alignment": 3}, "an area of 1048576 bytes aligned to 3 can't be"),
        (InvalidArgument, {"base": G + M, "fixed": True}, "an area at 0x40100000 must be aligned to 0x200000 bytes"),
        (InvalidArgument, {"order_per_bit": 10}, "0x200000 bytes are no whole bits of 2**10 pages"),
        (InvalidArgument, {"base": G, "limit": G}, "0x200000 bytes at 0x40000000 exceed the limit 0x40000000"),
        (
            NoMemory,
            {"size": 2 * G},
            f"no 0x80000000 bytes aligned to 0x200000 are free from 0x0 to 0x80000000: {LEFT}",
        ),
        (Busy, {"base": G, "fixed": True}, "0x200000 bytes at 0x40000000 are reserved already"),
        (
            NoMemory,
            {"size": G, "base": G},
            f"no 0x40000000 bytes aligned to 0x200000 are free from 0x40000000 to 0x80000000: {LEFT}",
        ),
    ],
)
def test_what_cannot_be_declared(error, options, sentence):
    memory = machine()
    memory.reserve(G, 4096)
    before = memory.free()
    size = options.pop("size", 2 * M)
    with pytest.raises(error) as raised:
        declare_area(memory, size, **options)
    assert str(raised.value) == sentence
    assert memory.free() == before


def test_across_the_border_of_high_memory_and_too_many_areas():
    memory = machine((16 * M, 2 * G), highmem=896 * M)
    with pytest.raises(InvalidArgument) as raised:
        declare_area(memory, 4 * M, base=894 * M, fixed=True)
    assert str(raised.value) == "0x400000 bytes at 0x37e00000 cross the border of high memory at 0x38000000"
    for _ in range(20):
        declare_area(memory, M)
    with pytest.raises(NoSpace, match=r"^there are 20 areas already$"):
        declare_area(memory, M)


def test_several_ranges_only_in_newer_kernels():
    memory = machine((G, G), (4 * G, G), (6 * G, 3 * G))
    plan = AreaPlan("hugetlb0", 4 * G, alignment=G, order_per_bit=9, node=0, several=True)
    with pytest.raises(NoMemory):
        plan.declare(memory)
    area = plan.declare(memory, profile="7.3")
    assert [(part.start, part.size) for part in area.ranges] == [(4 * G, G), (6 * G, 3 * G)]
    assert memory.free() == [(G, 2 * G)]
    with pytest.raises(NoMemory):  # below 4 GiB nothing is put together
        declare_area(machine((G, G), (3 * G, G)), 2 * G, several=True)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=6),
    st.integers(1, 8),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 32),
    st.integers(0, 32),
    st.booleans(),
)
def test_finding_is_a_look_at_every_place(reserved, size, align, low, high, bottom_up):
    memory = machine((4096, 15 * 4096), (20 * 4096, 12 * 4096))
    pages = [*range(1, 16), *range(20, 32)]
    for start, count in reserved:
        memory.reserve(start * 4096, count * 4096)
        pages = [page for page in pages if not start <= page < start + count]
    places = [
        at
        for at in range(max(low, 1), 32)
        if at % align == 0
        and at + size <= high
        and all(page in pages for page in range(at, at + size))
        and (at + size <= 16 or at >= 20)
    ]
    wanted = None if not places else (min if bottom_up else max)(places) * 4096
    found = memory.find(size * 4096, align * 4096, low * 4096, high * 4096, bottom_up=bottom_up)
    assert found == wanted
