import pytest

from swiommu.address import PhysRange, PhysSpace
from swiommu.errors import InvalidArgument, NoMemory
from swiommu.region.mainline import BootMemory, FlatTree, ReservedNode, TreeNode, Use, plan_reserved_memory

M, G = 1 << 20, 1 << 30
SHARED, RESTRICTED = b"acme,pool\0shared-dma-pool\0", b"restricted-dma-pool\0"


def words(*values):
    return b"".join(value.to_bytes(4) for value in values)


CELLS = {"#address-cells": words(1), "#size-cells": words(1)}


def tree(*nodes, devices=(), top=None):
    reserved = TreeNode("reserved-memory", {**CELLS, "ranges": b""} if top is None else top, list(nodes))
    return FlatTree(TreeNode("", dict(CELLS), [*devices, reserved]))


def node(name="pool@50000000", compatible=SHARED, *flags, **properties):
    values = {key.replace("_", "-"): value for key, value in properties.items()}
    if "reg" not in values and "size" not in values:
        values["reg"] = words(0x5000_0000, 4 * M)
    return TreeNode(name, {"compatible": compatible, **values, **dict.fromkeys(flags, b"")})


def plan(*nodes, **options):
    return plan_reserved_memory(tree(*nodes), **options)


@pytest.mark.parametrize(
    ("given", "use", "default"),
    [
        (node("a", SHARED, "reusable"), Use.AREA, False),
        (node("a", SHARED, "reusable", "linux,cma-default"), Use.AREA, True),
        (node("a", SHARED), Use.COHERENT, False),
        (node("a", SHARED, "no-map", "linux,dma-default"), Use.COHERENT, True),
        (node("a", RESTRICTED), Use.RESTRICTED, False),
        (node("a", b"vendor,firmware\0", "no-map"), Use.RESERVED, False),
        (node("a", b""), Use.RESERVED, False),
    ],
)
def test_what_becomes_of_a_node(given, use, default):
    made = plan(given)
    no_map = "no-map" in given
    assert made.nodes == (ReservedNode("a", use, 4 * M, 0x5000_0000, no_map=no_map, default=default),)
    assert made.refused == ()


@pytest.mark.parametrize(
    ("given", "options", "code", "reason"),
    [
        (node("a", SHARED, "reusable", "no-map"), {}, 22, "reusable and no-map exclude each other"),
        (
            node("a", SHARED, "reusable", "linux,cma-default"),
            {"cma_given": True},
            16,
            "the command line's cma= is used instead",
        ),
        (
            node("a", SHARED, "reusable", reg=words(G + M, 4 * M)),
            {},
            22,
            "start and size must be multiples of 0x200000 bytes",
        ),
        (node("a", SHARED, "reusable", reg=words(G, M)), {}, 22, "start and size must be multiples of 0x200000 bytes"),
        (node("a", SHARED, "reusable", size=words(M)), {}, 22, "start and size must be multiples of 0x200000 bytes"),
        (node("a", SHARED), {"arm32": True}, 22, "a coherent pool without no-map is not supported on 32-bit ARM"),
        (node("a", RESTRICTED, "reusable"), {}, 22, "a restricted pool must not have reusable"),
        (node("a", RESTRICTED, "no-map"), {}, 22, "a restricted pool must not have no-map"),
        (node("a", RESTRICTED, "linux,cma-default"), {}, 22, "a restricted pool must not have linux,cma-default"),
        (node("a", RESTRICTED, "linux,dma-default"), {}, 22, "a restricted pool must not have linux,dma-default"),
        (TreeNode("a"), {}, 22, "has neither reg nor size"),
        (node("a", reg=b""), {}, 22, "reg has 0 bytes, not pairs of 8"),
        (node("a", reg=words(1, 2, 3)), {}, 22, "reg has 12 bytes, not pairs of 8"),
        (node("a", reg=words(G, 0)), {}, 22, "reg has 0x0 bytes at 0x40000000"),
        (node("a", size=words(1, 2)), {}, 22, "size has 8 bytes, not 4"),
        (node("a", size=words(0)), {}, 22, "0 bytes aligned to 0 can't be reserved"),
        (node("a", size=words(M), alignment=words(3)), {}, 22, "1048576 bytes aligned to 3 can't be reserved"),
        (node("a", size=words(M), alignment=b"x"), {}, 22, "alignment has 1 bytes, not 4"),
        (node("a", size=words(M), alloc_ranges=words(1)), {}, 22, "alloc-ranges has 4 bytes, not pairs of 8"),
    ],
)
def test_what_the_kernel_refuses(given, options, code, reason):
    made = plan(given, node("good"), **options | ({"arm32": False} if "arm32" not in options else {}))
    (refusal, *_) = made.refused
    assert (refusal.what, refusal.errno, refusal.reason) == ("a", code, reason)
    assert [each.name for each in made.nodes] == ([] if options.get("arm32") else ["good"])


@pytest.mark.parametrize(
    "top",
    [{}, CELLS, {**CELLS, "#size-cells": words(2), "ranges": b""}, {**CELLS, "#address-cells": b"", "ranges": b""}],
)
def test_a_top_that_the_kernel_ignores(top):
    made = plan_reserved_memory(tree(node(), top=top))
    assert made.nodes == ()
    assert [str(each) for each in made.refused] == [
        "reserved-memory: has not the root's cells, or no ranges: it is ignored"
    ]


def test_no_reserved_memory_and_disabled_nodes():
    assert plan_reserved_memory(FlatTree(TreeNode(""))).nodes == ()
    assert [each.name for each in plan(node("a", status=b"disabled\0"), node("b", status=b"ok\0")).nodes] == ["b"]


def test_sixty_four_bit_cells_and_a_wrap():
    cells = {"#address-cells": words(2), "#size-cells": words(2)}
    big = TreeNode("big", {"reg": words(0xFFFF_FFFF, 0xFFFF_F000, 0, 0x2000)})
    good = TreeNode("good", {"reg": words(1, 0, 0, 0x2000)})
    top = TreeNode("reserved-memory", {**cells, "ranges": b""}, [big, good])
    made = plan_reserved_memory(FlatTree(TreeNode("", cells, [top])))
    assert [each.start for each in made.nodes] == [4 * G]
    assert [str(each) for each in made.refused] == ["big: reg has 0x2000 bytes at 0xfffffffffffff000"]
    huge = {"#address-cells": words(0x4000_0000), "#size-cells": words(0x4000_0000)}
    top = TreeNode("reserved-memory", {**huge, "ranges": b""}, [big])
    assert plan_reserved_memory(FlatTree(TreeNode("", huge, [top]))).nodes == ()


def test_further_ranges_are_kept_away_only():
    made = plan(node("a", SHARED, "reusable", reg=words(G, 4 * M, 2 * G, M)))
    assert [(each.use, each.start) for each in made.nodes] == [(Use.AREA, G), (Use.RESERVED, 2 * G)]


def test_overlaps_and_second_defaults_are_warnings():
    made = plan(
        node("a", SHARED, "reusable", "linux,cma-default", reg=words(G, 4 * M)),
        node("b", SHARED, "reusable", "linux,cma-default", reg=words(G + 2 * M, 4 * M)),
    )
    assert [(each.what, each.errno, each.reason) for each in made.refused] == [
        ("b", 0, "0x40200000 overlaps 'a', which ends at 0x40400000"),
        ("a", 0, "'b' is the default instead"),
    ]
    assert [each.default for each in made.nodes] == [False, True]


def test_who_uses_what():
    pool, other = node("a", phandle=words(1)), node("b", reg=words(G, M), **{"linux,phandle": words(2)})
    bad = node("c", SHARED, "reusable", "no-map", phandle=words(3))
    cam = TreeNode("cam", {"memory-region": words(2, 1)})
    odd = TreeNode("odd", {"memory-region": words(3, 1) + b"\0"})
    made = plan_reserved_memory(tree(pool, other, bad, devices=[TreeNode("soc", {}, [cam]), odd]))
    assert made.uses == {"/soc/cam": ("b", "a"), "/odd": ("a",)}
    assert [str(each) for each in made.refused][-1] == "/odd: memory-region has no usable node 0x3"


def test_placing():
    memory = BootMemory([PhysRange(PhysSpace("ram").at(G), G)])
    windows = words(0x1000_0000, 0x1000_0000, G + 16 * M, 8 * M)
    made = plan(
        node("searched", SHARED, "reusable", size=words(4 * M), alloc_ranges=windows),
        node("fixed", RESTRICTED, reg=words(G + 20 * M, 4 * M)),
    )
    assert [each.name for each in made.nodes] == ["fixed", "searched"]
    assert [each.place(memory) for each in made.nodes] == [G + 20 * M, G + 16 * M]
    fixed, searched = made.nodes
    assert searched.alignment == 2 * M
    assert searched.area(G + 16 * M).count == 1024
    with pytest.raises(InvalidArgument, match=r"^'fixed' is no contiguous area: restricted pool of a device$"):
        fixed.area(G)
    with pytest.raises(NoMemory, match=r"^no 4194304 bytes are free for 'searched'$"):
        searched.place(memory)
