"""Where areas land at boot, in the situations of public reports: page sizes, versions, spellings, banks."""

import pytest

from swiommu.address import PhysRange, PhysSpace
from swiommu.errors import InvalidArgument, NoMemory
from swiommu.region.mainline import (
    BootMemory,
    FlatTree,
    TreeNode,
    Use,
    cma_min_alignment,
    declare_area,
    plan_command_line,
    plan_reserved_memory,
)

K, M, G = 1 << 10, 1 << 20, 1 << 30


def memory(*banks, **options):
    space = PhysSpace("ram", width=40)
    return BootMemory([PhysRange(space.at(start), size) for start, size in banks], **options)


# -- page blocks


@pytest.mark.parametrize(
    ("page_size", "kernel", "order", "block"),
    [
        (4 * K, "6.12", None, 2 * M),
        (4 * K, "5.18", None, 2 * M),
        (4 * K, "5.17.15-v8+", None, 4 * M),
        (4 * K, "4.9", None, 4 * M),
        (16 * K, "6.12", None, 32 * M),
        (16 * K, "5.15", None, 32 * M),
        (64 * K, "6.12", None, 512 * M),
        (64 * K, "5.10", None, 512 * M),
        (8 * K, "6.12", None, 8 * M),
        (32 * K, "6.12", None, 32 * M),  # a huge page would be 128 MiB, beyond the largest block
        (4 * K, "6.12", 10, 4 * M),  # no huge pages: 32-bit ARM without LPAE
        (4 * K, "6.12", 7, 512 * K),
        (4 * K, "5.15", 7, 4 * M),
        (64 * K, "6.17", 5, 2 * M),
        (64 * K, "5.15", 5, 512 * M),
        (4 * K, "6.12", 0, 4 * K),
        (64 * K, "6.12", 20, 64 * G),
    ],
)
def test_an_area_is_aligned_to_a_page_block(page_size, kernel, order, block):
    assert cma_min_alignment(page_size, kernel=kernel, pageblock_order=order) == block
    machine = memory((0, 256 * G), page_size=page_size, kernel=kernel, pageblock_order=order)
    machine.reserve(0, 1)
    assert machine.min_alignment == block
    assert declare_area(machine, 1, limit=192 * G + block - 1) == ((64 * G if block == 64 * G else 4 * G, block),)
    assert memory((0, G), page_size=page_size, kernel=kernel, min_alignment=M).min_alignment == M


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"page_size": 2048}, "a page of 2048 bytes can't be: a power of two of at least 4096 is needed"),
        ({"page_size": 12288}, "a page of 12288 bytes can't be: a power of two of at least 4096 is needed"),
        ({"page_size": 0}, "a page of 0 bytes can't be: a power of two of at least 4096 is needed"),
        ({"pageblock_order": 21}, "a page block of order 21 can't be: 0 to 20 are possible"),
        ({"pageblock_order": -1}, "a page block of order -1 can't be: 0 to 20 are possible"),
        ({"kernel": "latest"}, "'latest' is no version of a kernel: one is needed such as 6.12"),
        ({"kernel": ""}, "'' is no version of a kernel: one is needed such as 6.12"),
        ({"kernel": "6"}, "'6' is no version of a kernel: one is needed such as 6.12"),
    ],
)
def test_what_no_page_block_is_made_of(options, sentence):
    with pytest.raises(InvalidArgument) as raised:
        memory((0, G), **options)
    assert str(raised.value) == sentence
    with pytest.raises(InvalidArgument) as raised:
        plan_reserved_memory(FlatTree(TreeNode("")), **options)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(("mib", "free"), [(512, 0x3940_0000), (1, 0x3940_0000)])
def test_512_mib_fail_with_pages_of_64_kib(mib, free):
    """B08: the only block of 512 MiB below 1 GiB that RAM covers holds the kernel; 1 MiB is one block as well."""
    machine = memory((0, 0x3B40_0000), (G, 3 * G), page_size=64 * K)
    machine.reserve(0x20_0000, 0x1E0_0000)
    with pytest.raises(NoMemory) as raised:
        declare_area(machine, mib * M, limit=G)
    assert str(raised.value) == (
        "no 0x20000000 bytes aligned to 0x20000000 are free from 0x0 to 0x40000000: the largest free range has "
        f"{free:#x} bytes at 0x2000000"
    )
    assert declare_area(machine, mib * M, limit=2 * G) == ((0x6000_0000, 512 * M),)


def test_pages_of_16_kib_are_aligned_to_32_mib():
    machine = memory((0, 0x3B40_0000), page_size=16 * K)
    machine.reserve(0x20_0000, 0x1E0_0000)
    assert declare_area(machine, 33 * M, limit=G) == ((0x3600_0000, 64 * M),)


# -- B10: 2048 MiB fail, 1900 work


def test_the_low_bank_has_2047_mib_and_holds_the_kernel():
    def declared(mib):
        machine = memory((0, 0x7FF0_0000), (0x8_0000_0000, 2 * G))
        machine.reserve(0x8_0000, 24 * M)
        return plan_command_line(f"cma={mib}M", limit=1 << 32).areas[0].declare(machine).allocator.start

    assert declared(1900) == 0x920_0000
    assert declared(2020) == 0x1A0_0000
    for mib in (2048, 2022):
        with pytest.raises(NoMemory) as raised:
            declared(mib)
        assert str(raised.value) == (
            f"no {mib * M:#x} bytes aligned to 0x200000 are free from 0x0 to 0x100000000: the largest free range has "
            "0x7e680000 bytes at 0x1880000"
        )
    empty = memory((0, 16 * M), (8 * G, 2 * G))
    empty.reserve(0, 16 * M)
    with pytest.raises(NoMemory) as raised:
        declare_area(empty, M, limit=4 * G)
    assert str(raised.value) == (
        "no 0x200000 bytes aligned to 0x200000 are free from 0x0 to 0x100000000: nothing is free there"
    )


# -- B31: the device tree's own place splits the window


def words(*values):
    return b"".join(value.to_bytes(4) for value in values)


def camera_tree(size=0x1400_0000, **more):
    """Addresses of two cells and sizes of one; one area below 768 MiB."""
    cells = {"#address-cells": words(2), "#size-cells": words(1)}
    area = TreeNode(
        "linux,cma",
        {
            "compatible": b"shared-dma-pool\0",
            "size": words(size),
            "reusable": b"",
            "linux,cma-default": b"",
            "alloc-ranges": words(0, 0, 0x3000_0000),
            **more,
        },
    )
    return FlatTree(TreeNode("", dict(cells), [TreeNode("reserved-memory", {**cells, "ranges": b""}, [area])]))


@pytest.mark.parametrize(
    ("kernel", "flat_tree_at", "place"),
    [
        ("5.15", 0x2EFF_0000, 0x1AC0_0000),
        ("5.17", 0x2EFF_0000, 0x1AC0_0000),
        ("5.15", 0x1FFC_0000, 0xBC0_0000),
        ("6.12", 0x2EFF_0000, 0x1AE0_0000),
        ("5.18", 0x1FFC_0000, 0xBE0_0000),
        (None, 0x2EFF_0000, 0x1AE0_0000),
    ],
)
def test_where_the_area_lands_around_the_device_tree(kernel, flat_tree_at, place):
    options = {} if kernel is None else {"kernel": kernel}
    machine = memory((0, 0x3B40_0000), **options)
    machine.reserve(0x20_0000, 0x230_0000)
    machine.reserve(flat_tree_at, 0x1_0000)
    (node,) = plan_reserved_memory(camera_tree(), **options).nodes
    assert (node.use, node.alignment) == (Use.AREA, machine.min_alignment)
    assert node.place(machine) == place


def test_a_plan_of_a_newer_kernel_is_placed_by_the_memory_it_lands_in():
    (node,) = plan_reserved_memory(camera_tree()).nodes
    machine = memory((0, 0x3B40_0000), kernel="5.15")
    machine.reserve(0x20_0000, 0x230_0000)
    machine.reserve(0x2EFF_0000, 0x1_0000)
    assert node.place(machine) == 0x1AC0_0000
    with pytest.raises(InvalidArgument) as raised:
        node.place(memory((0, 0x3B40_0000), page_size=64 * K))
    assert str(raised.value) == "start and size of 'linux,cma' must be multiples of 0x20000000 bytes"


@pytest.mark.parametrize(
    ("page_size", "size", "sentence"),
    [
        (64 * K, 0x1400_0000, "linux,cma: start and size must be multiples of 0x20000000 bytes"),
        (16 * K, 33 * M, "linux,cma: start and size must be multiples of 0x2000000 bytes"),
        (4 * K, 3 * M, "linux,cma: start and size must be multiples of 0x200000 bytes"),
    ],
)
def test_a_size_that_is_no_page_blocks_is_refused(page_size, size, sentence):
    plan = plan_reserved_memory(camera_tree(size), page_size=page_size)
    assert [(str(each), each.errno) for each in plan.refused] == [(sentence, 22)]
    assert plan.nodes == ()


# -- B33: spellings of cma=


@pytest.mark.parametrize(
    ("text", "size", "declared", "sentences"),
    [
        ("cma=256MB", 256 * M, 256 * M, ["cma=: 'B' is ignored, the size is 268,435,456 bytes"]),
        ("cma=256MiB", 256 * M, 256 * M, ["cma=: 'iB' is ignored, the size is 268,435,456 bytes"]),
        ("cma=256m", 256 * M, 256 * M, []),
        ("cma=0X10000000", 256 * M, 256 * M, []),
        ("cma=02000000000", 256 * M, 256 * M, []),
        ("cma=1.5G", 1, 2 * M, ["cma=: '.5G' is ignored, the size is 1 byte"]),
        ("cma=.5G", None, None, ["cma=: '.5G' is ignored, the size is 0 bytes"]),
        ("cma=25%", 25, 2 * M, ["cma=: '%' is ignored, the size is 25 bytes"]),
        ("cma=1,024M", 1, 2 * M, ["cma=: ',024M' is ignored, the size is 1 byte"]),
        ("cma=64 M", 64, 2 * M, []),
        ("cma=0b100", None, None, ["cma=: 'b100' is ignored, the size is 0 bytes"]),
        ("cma=0x", None, None, ["cma=: 'x' is ignored, the size is 0 bytes"]),
        ("cma=-1", None, None, ["cma=: '-1' is ignored, the size is 0 bytes"]),
        ("cma=64MM", 64 * M, 64 * M, ["cma=: 'M' is ignored, the size is 67,108,864 bytes"]),
        ("cma=", None, None, []),
        ("cma=auto", None, None, ["cma=: 'auto' is ignored, the size is 0 bytes"]),
        ("cma 256M", None, None, ["cma=: no value is given"]),
        ("cma = 256M", None, None, ["cma=: no value is given"]),
        ("cma:256M", None, None, []),
        ("CMA=256M", None, None, ["CMA=: the kernel reads cma= in lower case only"]),
        ("Cma=256M cma=64M", 64 * M, 64 * M, ["Cma=: the kernel reads cma= in lower case only"]),
        ("NUMA-CMA=0:64M", None, None, ["NUMA_CMA=: the kernel reads numa_cma= in lower case only"]),
        ('cma="64M"', 64 * M, 64 * M, []),
        ('"cma=64M"', 64 * M, 64 * M, []),
        ('"cma=64M" quiet', 64 * M, 64 * M, []),
        ('cma="64M" quiet', 64 * M, 64 * M, []),
        ('"cma=64 M"', 64, 2 * M, ["cma=: ' M' is ignored, the size is 64 bytes"]),
        ('cma=6"4"M', 6, 2 * M, ["""cma=: '"4"M' is ignored, the size is 6 bytes"""]),
        ('"cma"=64M', None, None, []),
        ('c"ma"=64M', None, None, []),
        ('"cma"', None, None, ["cma=: no value is given"]),
        ('"--" cma=64M', None, None, []),
        ("--=1 cma=64M", 64 * M, 64 * M, []),
        ("=cma=64M", None, None, []),
        ("cma=64M\xa0quiet", 64 * M, 64 * M, []),
        ("cma=64M\u2003quiet", 64 * M, 64 * M, ["cma=: '\\u2003quiet' is ignored, the size is 67,108,864 bytes"]),
        ("cma=0xffffffffffffffff", None, None, []),
    ],
)
def test_how_the_kernel_reads_a_size(text, size, declared, sentences):
    plan = plan_command_line(text)
    assert [area.size for area in plan.areas] == ([] if size is None else [size])
    assert [str(each) for each in plan.refused] == sentences
    for area in plan.areas:
        assert area.declare(memory((0, G))).count * 4096 == declared


def test_the_size_that_the_kernel_takes_for_none():
    assert plan_command_line("cma=18446744073709551615").cma_given is False
    assert plan_command_line("cma=16777216T").cma_given is True
