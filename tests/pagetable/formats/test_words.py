"""Whole words of each format, as kernels write them, and the shapes that formats have."""

from pathlib import Path

import pytest

from swiommu.address import Prot
from swiommu.errors import AddressInUse, AlreadyMapped, InvalidArgument, NoPageSize
from swiommu.pagetable import formats
from swiommu.pagetable.format import EMPTY, Leaf, Table
from swiommu.pagetable.formats import AMD_V1, LpaeShape, amd_v1, arm_lpae, format_named, riscv, vtd_ss, x86_64

R, W, C, NX, M, P = (int(flag) for flag in Prot)
RW = R | W
AT = 0x89ABC000  # 4 KiB of output
AT_2M, AT_1G = 0x8960_0000, 0x1_4000_0000
XN = 3 << 53

VTD, VTD3, VTD5, VTD_NEW = vtd_ss(), vtd_ss(3), vtd_ss(5), vtd_ss(profile="7.3")
X4, X5 = x86_64(), x86_64(5)
ARM, ARM_16K, ARM_64K, ARM_52 = arm_lpae(), arm_lpae(16384), arm_lpae(65536), arm_lpae(65536, ias=52, oas=52)
ARM2, ARM2_16K, ARM2_64K = arm_lpae(stage=2), arm_lpae(16384, 2), arm_lpae(65536, 2)
SV39, SV48, SV57, NAPOT, G48 = riscv(3), riscv(), riscv(5), riscv(napot=True), riscv(gstage=True)

LEAVES = [  # format, depth, order, prot, output address -> the word
    (VTD, 3, 0, RW, AT, AT | 3),
    (VTD, 3, 0, R, AT, AT | 1),
    (VTD, 3, 0, W, AT, AT | 3),  # recorded: 6.12 sets R whatever is asked for
    (VTD, 3, 0, RW | C | NX | M | P, AT, AT | 3),
    (VTD, 2, 0, RW, AT_2M, AT_2M | 0x83),
    (VTD, 1, 0, RW, AT_1G, AT_1G | 0x83),
    (VTD3, 2, 0, RW, AT, AT | 3),
    (VTD3, 0, 0, R, AT_1G, AT_1G | 0x81),
    (VTD5, 4, 0, RW, AT, AT | 3),
    (VTD5, 2, 0, RW, AT_1G, AT_1G | 0x83),
    (VTD_NEW, 3, 0, W, AT, AT | 2),
    (VTD_NEW, 2, 0, W, AT_2M, AT_2M | 0x82),
    (VTD_NEW, 3, 0, R, AT, AT | 1),
    (X4, 3, 0, RW, AT, AT | 0x67),
    (X4, 3, 0, W, AT, AT | 0x67),
    (X4, 3, 0, R, AT, AT | 0x25),
    (X4, 3, 0, RW | C | NX | P, AT, AT | 0x67),
    (X4, 2, 0, RW, AT_2M, AT_2M | 0xE7),
    (X4, 1, 0, RW, AT_1G, AT_1G | 0xE7),
    (X4, 2, 0, R, AT_2M, AT_2M | 0xA5),
    (X5, 4, 0, RW, AT, AT | 0x67),
    (X5, 3, 0, RW, AT_2M, AT_2M | 0xE7),
    (AMD_V1, 5, 0, RW, AT, 0x7000_0000_89AB_C001),
    (AMD_V1, 5, 0, R, AT, 0x3000_0000_89AB_C001),
    (AMD_V1, 5, 0, W | C, AT, 0x5000_0000_89AB_C001),
    (AMD_V1, 5, 4, RW, 0x80000, 0x7000_0000_0008_7E01),
    (AMD_V1, 5, 1, RW, 0x6000, 0x7000_0000_0000_6E01),
    (AMD_V1, 5, 8, RW, 0x30_0000, 0x7000_0000_0037_FE01),
    (AMD_V1, 4, 0, RW, AT_2M, 0x7000_0000_8960_0001),
    (AMD_V1, 4, 1, RW, 0x40_0000, 0x7000_0000_005F_FE01),
    (AMD_V1, 3, 0, RW, AT_1G, 0x7000_0001_4000_0001),
    (AMD_V1, 2, 1, R, 1 << 40, 0x3000_017F_FFFF_FE01),
    (AMD_V1, 1, 0, R, 1 << 48, 0x3001_0000_0000_0001),
    (AMD_V1, 1, 3, R, 1 << 51, 0x300B_FFFF_FFFF_FE01),
    (ARM, 3, 0, RW | C, AT, 0x89AB_CF47),
    (ARM, 3, 0, W | C, AT, 0x89AB_CF47),
    (ARM, 3, 0, R | C, AT, 0x89AB_CFC7),
    (ARM, 3, 0, W | NX | M, 0, 0x60_0000_0000_0E4B),  # recorded: a doorbell
    (ARM, 3, 0, RW, AT, AT | 0xE43),
    (ARM, 3, 0, RW | C | NX, AT, AT | 0xF47 | XN),
    (ARM, 3, 0, RW | C | P, AT, AT | 0xF07),
    (ARM, 3, 0, RW | C | M, AT, AT | 0xF4B),
    (ARM, 2, 0, RW | C, AT_2M, AT_2M | 0xF45),
    (ARM, 1, 0, RW | C, AT_1G, AT_1G | 0xF45),
    (ARM, 1, 0, R | C, AT_1G, AT_1G | 0xFC5),
    (ARM_16K, 3, 0, RW | C, 0x4000, 0x4F47),
    (ARM_16K, 2, 0, RW | C, 0x200_0000, 0x200_0F45),
    (ARM_64K, 2, 0, RW | C, 0x1_0000, 0x1_0F47),
    (ARM_64K, 1, 0, RW | C, 0x2000_0000, 0x2000_0F45),
    (ARM_52, 2, 0, RW | C, 0xA_0000_0001_0000, 0x1_AF47),
    (ARM_52, 0, 0, RW | C, 0xF_FC00_0000_0000, 0xFC00_0000_FF45),
    (ARM2, 3, 0, RW | C, AT, 0x89AB_C7FF),
    (ARM2, 3, 0, R | C, AT, AT | 0x77F),
    (ARM2, 3, 0, W | C, AT, AT | 0x7BF),
    (ARM2, 3, 0, RW, AT, AT | 0x6D7),
    (ARM2, 3, 0, W | NX | M, AT, AT | 0x687 | XN),
    (ARM2, 3, 0, RW | C | P, AT, AT | 0x7FF),
    (ARM2, 2, 0, RW | C, AT_2M, AT_2M | 0x7FD),
    (ARM2_16K, 2, 0, RW | C, 0x4000, 0x47FF),
    (ARM2_64K, 1, 0, RW | C, 0x2000_0000, 0x2000_07FD),
    (SV48, 3, 0, RW | NX, AT, AT >> 2 | 0xD7),
    (SV48, 3, 0, W | NX | C | M | P, AT, AT >> 2 | 0xD7),
    (SV48, 3, 0, RW, AT, AT >> 2 | 0xDF),
    (SV48, 3, 0, R | NX, AT, AT >> 2 | 0x53),
    (SV48, 0, 0, RW | NX, 1 << 39, 1 << 37 | 0xD7),
    (SV57, 0, 0, RW | NX, 1 << 48, 1 << 46 | 0xD7),
    (SV39, 0, 0, RW | NX, AT_1G, AT_1G >> 2 | 0xD7),
    (G48, 3, 0, RW | NX, AT, AT >> 2 | 0xD7),
    (NAPOT, 3, 0, RW | NX, AT, AT >> 2 | 0xD7),
    (NAPOT, 3, 4, RW | NX, 0x80000, 0x8000_0000_0002_20D7),
]

TABLES = [  # format, depth, address of the next table -> the word
    *((form, depth, AT, AT | 3) for form in (VTD, VTD5, ARM, ARM2) for depth in (0, 1)),
    (X4, 0, AT, AT | 0x27),
    (X5, 3, AT, AT | 0x27),
    (AMD_V1, 0, AT, 0x6000_0000_89AB_CA01),
    (AMD_V1, 3, AT, 0x6000_0000_89AB_C401),
    (AMD_V1, 4, AT, 0x6000_0000_89AB_C201),
    (ARM_16K, 0, 0x4000, 0x4003),
    (ARM_64K, 0, 0x1_0000, 0x1_0003),
    (ARM_52, 0, 0xA_0000_0001_0000, 0x1_A003),
    (SV39, 0, AT, AT >> 2 | 1),
    (G48, 0, AT, AT >> 2 | 1),
]


def named(case):
    return getattr(case, "name", None) or (hex(case) if case > 9 else str(case))


@pytest.mark.parametrize(("form", "depth", "order", "prot", "oa", "word"), LEAVES, ids=named)
def test_a_leaf_is_the_kernels_word(form, depth, order, prot, oa, word):
    assert hex(form.leaf_entry(oa, depth, prot, order)) == hex(word)
    leaf = form.checked(form.decode(word, depth), depth)
    assert isinstance(leaf, Leaf)
    assert (leaf.oa, leaf.order) == (oa, order)


@pytest.mark.parametrize(("form", "depth", "oa", "word"), TABLES, ids=named)
def test_a_table_is_the_kernels_word(form, depth, oa, word):
    assert hex(form.table_entry(oa, depth)) == hex(word)
    assert form.decode(word, depth) == Table(oa)


def test_coherency_is_one_bit_or_always_there():
    assert hex(VTD.leaf_entry(AT, 3, RW, 0) | VTD.coherent) == hex(AT | 0x803)
    assert [form.coherent for form in (VTD, X4, AMD_V1, SV48, ARM)] == [0x800, 0, 0, 0, None]
    assert VTD.decode(AT | 0x803, 3) == Leaf(AT, Prot(RW | C))


@pytest.mark.parametrize(
    ("form", "asked", "got"),
    [
        (VTD, W, RW | C),
        (VTD_NEW, W, W | C),
        (VTD, R | NX | M | P, R | C),
        (X4, W, RW | C),
        (X4, R | NX | P, R | C),
        (AMD_V1, W, W | C),
        (AMD_V1, R | NX, R | C),
        (ARM, W, RW),
        (ARM, R | C | NX | P, R | C | NX | P),
        (ARM, RW | C | M, RW | M),
        (ARM2, W, W),
        (ARM2, R | C | NX | P, R | C | NX),
        (ARM2, RW | C | M, RW | M),
        (SV48, W, RW | C),
        (SV48, R | NX | M | P, R | NX | C),
    ],
    ids=named,
)
def test_what_of_a_protection_survives(form, asked, got):
    assert form.effective(Prot(asked)) == Prot(got)


@pytest.mark.parametrize(
    ("form", "input_width", "aperture", "output", "start", "bits", "sizes"),
    [
        (VTD3, 39, 39, 52, 0, [9, 9, 9], 0x4020_1000),
        (VTD, 48, 48, 52, 0, [9, 9, 9, 9], 0x4020_1000),
        (VTD5, 57, 57, 52, 0, [9, 9, 9, 9, 9], 0x4020_1000),
        (X4, 48, 47, 52, 0, [9, 9, 9, 9], 0x4020_1000),
        (X5, 57, 56, 52, 0, [9, 9, 9, 9, 9], 0x4020_1000),
        (AMD_V1, 64, 64, 52, 3, [7, 9, 9, 9, 9, 9], (1 << 52) - (1 << 12) - (1 << 39)),
        (ARM, 48, 48, 48, 0, [9, 9, 9, 9], 0x4020_1000),
        (ARM_16K, 48, 48, 48, 0, [1, 11, 11, 11], 0x200_4000),
        (ARM_64K, 48, 48, 48, 0, [6, 13, 13], 0x2001_0000),
        (ARM_52, 52, 52, 52, 0, [10, 13, 13], 1 << 42 | 0x2001_0000),
        (arm_lpae(ias=44, oas=44), 44, 44, 44, 0, [5, 9, 9, 9], 0x4020_1000),
        (arm_lpae(ias=39, oas=40), 39, 39, 40, 0, [9, 9, 9], 0x4020_1000),
        (SV39, 39, 38, 56, 0, [9, 9, 9], 0x4020_1000),
        (SV48, 48, 47, 56, 0, [9, 9, 9, 9], 1 << 39 | 0x4020_1000),
        (SV57, 57, 56, 56, 0, [9, 9, 9, 9, 9], 1 << 48 | 1 << 39 | 0x4020_1000),
        (G48, 50, 50, 56, 0, [11, 9, 9, 9], 1 << 39 | 0x4020_1000),
        (NAPOT, 48, 47, 56, 0, [9, 9, 9, 9], 1 << 39 | 0x4021_1000),
    ],
    ids=lambda case: getattr(case, "name", "-"),
)
def test_shapes(form, input_width, aperture, output, start, bits, sizes):
    assert (form.input_width, form.aperture_width, form.output_width, form.start) == (
        input_width,
        aperture,
        output,
        start,
    )
    assert ([level.bits for level in form.levels], hex(form.pgsize_bitmap)) == (bits, hex(sizes))


@pytest.mark.parametrize(
    ("granule", "ias", "oas", "old", "new"),  # first level and bits of the root: to 6.12, and later
    [
        (4096, 40, 40, (1, 10), (1, 10)),
        (4096, 42, 42, (1, 12), (1, 12)),
        (4096, 43, 44, (1, 13), (0, 4)),
        (4096, 40, 48, (1, 10), (0, 1)),
        (4096, 44, 44, (0, 5), (0, 5)),
        (4096, 48, 48, (0, 9), (0, 9)),
        (4096, 39, 40, (1, 9), (1, 9)),
        (16384, 48, 48, (1, 12), (1, 12)),
        (16384, 40, 40, (1, 4), (2, 15)),
        (16384, 47, 48, (1, 11), (1, 11)),
        (65536, 48, 48, (1, 6), (1, 6)),
        (65536, 52, 52, (1, 10), (1, 10)),
    ],
)
def test_roots_side_by_side(granule, ias, oas, old, new):
    for profile, expected in (("6.12", old), ("7.3", new)):
        shape = LpaeShape(granule, 2, ias, oas, profile)
        assert (shape.first_level, shape.levels[0].bits) == expected
        assert arm_lpae(granule, 2, ias, oas, profile).levels == shape.levels
        assert shape.beside <= 16
    assert LpaeShape(granule, 1, ias, oas).beside == 1


@pytest.mark.parametrize(
    ("shape", "t0sz", "tg0", "ps", "sl0"),
    [
        (LpaeShape(4096, 2, 48, 48), 16, 0, 5, 2),
        (LpaeShape(4096, 2, 40, 40), 24, 0, 2, 1),
        (LpaeShape(4096, 2, 30, 32), 34, 0, 0, 0),
        (LpaeShape(16384, 2, 48, 48), 16, 2, 5, 2),
        (LpaeShape(65536, 2, 52, 52), 12, 1, 6, 2),
        (LpaeShape(65536, 2, 40, 44), 24, 1, 4, 1),
    ],
)
def test_registers(shape, t0sz, tg0, ps, sl0):
    assert (shape.t0sz, shape.tg0, shape.ps, shape.sl0, shape.mair) == (t0sz, tg0, ps, sl0, 0xF404FF44)


@pytest.mark.parametrize(
    ("make", "old", "new"),
    [
        (vtd_ss, (AddressInUse, InvalidArgument), (AddressInUse, NoPageSize)),
        (x86_64, (AddressInUse, InvalidArgument), (AddressInUse, NoPageSize)),
        (amd_v1, (AddressInUse, InvalidArgument), (AddressInUse, NoPageSize)),
        (arm_lpae, (AlreadyMapped, InvalidArgument), (AlreadyMapped, InvalidArgument)),
        (riscv, (AddressInUse, InvalidArgument), (AddressInUse, NoPageSize)),
    ],
)
def test_rules_are_the_profiles(make, old, new):
    assert (make().rules.occupied, make().rules.misaligned) == old
    assert (make(profile="7.3").rules.occupied, make(profile="7.3").rules.misaligned) == new
    assert make().rules.no_access is (None if make is riscv else InvalidArgument)
    assert make(profile="7.3").rules.no_access is InvalidArgument
    with pytest.raises(InvalidArgument) as caught:
        make(profile="new")
    assert str(caught.value) == "'new' is no version of a kernel: one is needed such as 6.12"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: vtd_ss(2), "levels of VT-d's second stage can be 3, 4, 5, not 2"),
        (lambda: x86_64(3), "levels of x86-64 can be 4, 5, not 3"),
        (lambda: riscv(2), "levels of RISC-V can be 3, 4, 5, not 2"),
        (lambda: arm_lpae(8192), "LPAE granules can be 4096, 16384, 65536, not 8192"),
        (lambda: arm_lpae(stage=3), "LPAE stages can be 1, 2, not 3"),
        (lambda: arm_lpae(oas=52), "LPAE output widths can be 32, 36, 40, 42, 44, 48, not 52"),
        (lambda: arm_lpae(65536, oas=47), "LPAE output widths can be 32, 36, 40, 42, 44, 48, 52, not 47"),
        (lambda: arm_lpae(ias=49), "LPAE tables of 4096 bytes decode 25 to 48 bits, not 49"),
        (lambda: arm_lpae(65536, ias=24), "LPAE tables of 65536 bytes decode 25 to 52 bits, not 24"),
        (
            lambda: arm_lpae(stage=2, ias=48, oas=40, profile="7.3"),
            "a root for 48 bits of input would be 512 tables side by side, 16 are allowed",
        ),
        (lambda: format_named("mok"), "no page-table format is named 'mok'; did you mean 'mock'?"),
    ],
)
def test_formats_that_there_are_not(make, text):
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("form", "depth", "word"),
    [
        (VTD, 0, AT | 0x83),  # a large page of 512 GiB
        (VTD, 2, AT_2M | 0x1083),
        (VTD, 3, AT | 4),
        (X4, 0, AT | 0xE7),
        (X4, 2, AT_2M | 0x20E7),
        (X4, 3, AT | 0x66),
        (AMD_V1, 5, AT | 0x7000_0000_0000_0201),  # a table below the lowest level
        (AMD_V1, 3, AT | 0x7000_0000_0000_0201),  # one that skips a level
        (AMD_V1, 2, 0x7000_0000_0000_0001),  # 512 GiB
        (AMD_V1, 4, 0x7000_0000_0000_7E01),  # 64 KiB a level too high
        (AMD_V1, 4, 0x7000_0000_000F_FE01),  # the level's own size by its address
        (AMD_V1, 5, 0x700F_FFFF_FFFF_FE01),  # no zero that would tell a size
        (ARM, 3, AT | 0xF45),
        (ARM, 0, 0xF45),
        (ARM, 3, AT | 0xB47),
        (ARM, 3, AT | 0xF46),
        (arm_lpae(oas=40), 3, 1 << 40 | 0xF47),
        (ARM_64K, 2, 0x1_1F47),
        (ARM2, 3, AT | 0x7FF & ~0x3C | 0x10),
        (SV48, 3, AT >> 2 | 0xD5),  # W without R
        (SV48, 3, AT >> 2 | 0x97),  # not A
        (SV48, 3, 1 << 54 | 0xD7),
        (SV48, 3, 3 << 61 | 0xD7),
        (SV48, 3, 1 << 63 | 0x20D7),  # no Svnapot
        (NAPOT, 3, 1 << 63 | 0x10D7),
        (NAPOT, 2, 1 << 63 | 0x20D7),
        (SV48, 2, 0x4D7),
        (SV48, 3, AT >> 2 | 1),
        (SV48, 1, AT >> 2 | 0x41),
        (G48, 3, AT >> 2 | 0xC7),  # not U
    ],
    ids=named,
)
def test_what_hardware_refuses_leads_nowhere(form, depth, word):
    assert form.checked(form.decode(word, depth), depth) is EMPTY


def test_what_others_wrote_is_read():
    assert X4.decode(AT | 0x63 | 1 << 63, 3) == Leaf(AT, Prot(RW | C | NX | P))
    assert X4.decode(AT_2M | 0x10E7, 2) == Leaf(AT_2M, Prot(RW | C))  # PAT stands elsewhere in large pages
    assert X4.decode(AT | 0x21 | 1 << 63, 0) == Table(AT, Prot.READ, Prot(NX | P))
    assert VTD.decode(AT | 2, 0) == Table(AT, Prot.WRITE)
    assert AMD_V1.decode(0x2000_0000_89AB_C401, 3) == Table(AT, Prot.READ)
    assert AMD_V1.decode(AT | 1, 5) == Leaf(AT, Prot(C))
    assert ARM.decode(AT | 3 | 7 << 60, 0) == Table(AT, Prot.READ, Prot(NX | P))
    assert ARM2.decode(AT | 3 | 7 << 60, 0) == Table(AT)
    assert SV48.decode(AT >> 2 | 0x57, 3) == Leaf(AT, Prot(R | NX | C))  # not D: can't be written
    assert SV48.decode(AT >> 2 | 0xC7, 3) == Leaf(AT, Prot(RW | NX | C | P))
    assert SV48.decode(AT >> 2 | 0xD7 | 1 << 61, 3) == Leaf(AT, Prot(RW | NX))
    assert SV48.decode(AT >> 2 | 0xD7 | 2 << 61, 3) == Leaf(AT, Prot(RW | NX | M))


@pytest.mark.parametrize("path", sorted(Path(formats.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_a_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 160
