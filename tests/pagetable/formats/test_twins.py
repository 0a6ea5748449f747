"""Each decoder beside a second one that looks at one bit after the other, written from the manuals' tables alone.

A twin answers None, ("table", address, rights, sticky) or ("leaf", address, rights, log2 of the size). Rights are
letters out of "rwcmnp": read, write, cached, memory-mapped device, not executable, privileged only.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Leaf
from swiommu.pagetable.formats import FORMATS, arm_lpae, vtd_ss

LETTERS = dict(zip(Prot, "rwcnmp", strict=True))


class Bits:
    """A word by its bits: ``b[5]`` is one of them, ``b[7, 4]`` the number in a field, highest bit first."""

    def __init__(self, word):
        self.text = format(word, "064b")[::-1]

    def __getitem__(self, which):
        high, low = which if isinstance(which, tuple) else (which, which)
        return sum(1 << n for n, digit in enumerate(self.text[low : high + 1]) if digit == "1")

    def address(self, high, low):
        return self[high, low] * 2**low


def letters(**said):
    return "".join(sorted(letter for letter, so in said.items() if so))


def vtd(levels):
    def twin(word, height):  # height 1 is the lowest level
        b = Bits(word)
        if not b[0] and not b[1]:
            return None
        if height > 1 and not b[7]:
            return "table", b.address(51, 12), letters(r=b[0], w=b[1]), ""
        if height > 3 or (height == 2 and b[20, 12]) or (height == 3 and b[29, 12]):
            return None
        return "leaf", b.address(51, 12), letters(r=b[0], w=b[1], c=True), {1: 12, 2: 21, 3: 30}[height]

    return levels, twin


def x86(levels):
    def twin(word, height):
        b = Bits(word)
        if not b[0]:
            return None
        sticky = letters(n=b[63], p=not b[2])
        if height > 1 and not b[7]:
            return "table", b.address(51, 12), letters(r=True, w=b[1]), sticky
        if height > 3 or (height == 2 and b[20, 13]) or (height == 3 and b[29, 13]):
            return None
        low = {1: 12, 2: 21, 3: 30}[height]
        return "leaf", b.address(51, low), letters(r=True, w=b[1], c=True, n=b[63], p=not b[2]), low

    return levels, twin


def amd(word, height):
    b = Bits(word)
    natural = {1: 12, 2: 21, 3: 30, 4: 39, 5: 48, 6: 57}[height]
    rights = letters(r=b[61], w=b[62])
    if not b[0]:
        return None
    if b[11, 9] in range(1, 7):
        return ("table", b.address(51, 12), rights, "") if b[11, 9] == height - 1 else None
    if b[11, 9] == 0:
        size = natural
        if size in {39, 57} or any(b[n] for n in range(12, size)):
            return None
        return "leaf", b.address(51, 12), letters(r=b[61], w=b[62], c=True), size
    size = 13
    while size - 1 < 52 and b[size - 1]:
        size += 1
    next_natural = natural + 9
    if not natural < size < next_natural or size > 51:
        return None
    return "leaf", b.address(51, size) if size < 52 else 0, letters(r=b[61], w=b[62], c=True), size


def arm(granule, stage, oas, height_of_blocks, levels):
    page = {4: 12, 16: 14, 64: 16}[granule]

    def address(b, low):
        high = b[15, 12] << 48 if granule == 64 else 0
        whole = high + b.address(47, page)
        return None if whole >= 1 << oas else high + b.address(47, low)

    def stage1(b):
        device, cached = b[4, 2] in {2, 4, 5, 6, 7}, b[4, 2] == 1
        never = b[54] if b[6] else b[53]
        return letters(r=True, w=not b[7], c=cached, m=device, n=never, p=not b[6])

    def stage2(b):
        if b[5, 4] and not b[3, 2]:
            return None
        outer, inner = b[5, 4], b[3, 2]
        return letters(r=b[6], w=b[7], c=outer == inner == 3, m=outer == 0, n=b[54])

    def twin(word, height):
        b = Bits(word)
        if not b[0] or (height == 1 and not b[1]):
            return None
        if height > 1 and b[1]:
            at = address(b, page)
            if at is None:
                return None
            if stage == 2:
                return "table", at, "rw", ""
            return "table", at, letters(r=True, w=not b[62]), letters(p=b[61], n=b[60])
        size = page + (page - 3) * (height - 1)
        at = address(b, size)
        if at is None or height > height_of_blocks or not b[10]:
            return None
        rights = stage1(b) if stage == 1 else stage2(b)
        return None if rights is None else ("leaf", at, rights, size)

    return levels, twin


def risc(levels, *, gstage=False, napot=False):
    def twin(word, height):
        b = Bits(word)
        if not b[0] or b[60, 54]:
            return None
        if not b[1] and not b[2] and not b[3]:
            bad = height == 1 or b[4] or b[6] or b[7] or b[62, 61] or b[63]
            return None if bad else ("table", b[53, 10] * 4096, "rw", "")
        if (b[2] and not b[1]) or not b[6] or b[62, 61] == 3 or (gstage and not b[4]):
            return None
        rights = letters(r=b[1], w=b[2] and b[7], c=b[62, 61] == 0, m=b[62, 61] == 2, n=not b[3], p=not b[4])
        if b[63]:
            if not napot or height != 1 or b[13, 10] != 0b1000:
                return None
            return "leaf", b[53, 14] * 65536, rights, 16
        below = 9 * (height - 1)
        if below and b[9 + below, 10]:
            return None
        return "leaf", b[53, 10] * 4096, rights, 12 + below

    return levels, twin


TWINS = {
    "vtd-ss-3": vtd(3),
    "vtd-ss-4": vtd(4),
    "vtd-ss-5": vtd(5),
    "x86-64-4": x86(4),
    "x86-64-5": x86(5),
    "amd-v1": (6, amd),
    "arm-lpae-4k-s1": arm(4, 1, 48, 3, 4),
    "arm-lpae-4k-s2": arm(4, 2, 48, 3, 4),
    "arm-lpae-16k-s1": arm(16, 1, 48, 2, 4),
    "arm-lpae-16k-s2": arm(16, 2, 48, 2, 3),
    "arm-lpae-64k-s1": arm(64, 1, 48, 2, 3),
    "arm-lpae-64k-s2": arm(64, 2, 48, 2, 3),
    "arm-lpae-64k-s1-52-52": arm(64, 1, 52, 3, 3),
    "riscv-sv39": risc(3),
    "riscv-sv48": risc(4),
    "riscv-sv57": risc(5),
    "riscv-sv39x4": risc(3, gstage=True),
    "riscv-sv48x4": risc(4, gstage=True),
    "riscv-sv57x4": risc(5, gstage=True),
    "riscv-sv48-napot": risc(4, napot=True),
}
CASES = [
    *((FORMATS[name], *twin) for name, twin in TWINS.items()),
    (arm_lpae(oas=40), *arm(4, 1, 40, 3, 4)),
    (arm_lpae(stage=2, ias=40, oas=36), *arm(4, 2, 36, 3, 3)),
    (arm_lpae(65536, ias=42, oas=44), *arm(64, 1, 44, 2, 2)),
    (vtd_ss(profile="7.3"), *vtd(4)),
]


def said(form, word, depth):
    """What the decoder says, in the twin's words."""
    item = form.checked(form.decode(word, depth), depth)
    if item is EMPTY:
        return None

    def spelled(prot):
        return "".join(sorted(letter for flag, letter in LETTERS.items() if prot & flag))

    if isinstance(item, Leaf):
        return "leaf", item.oa, spelled(item.prot), form.levels[depth].shift + item.order
    return "table", item.oa, spelled(item.allows), spelled(item.prot)


def valid(form, depth, at, prot):
    """A word of every kind that the format writes there."""
    level, most = form.levels[depth], 1 << form.output_width
    for order, size in level.sizes.items():
        yield form.leaf_entry(at % most & -size, depth, prot, order)
    if depth + 1 < len(form.levels):
        yield form.table_entry(at % most & -form.levels[depth + 1].table_bytes, depth)


@pytest.mark.parametrize(("form", "levels", "twin"), CASES, ids=lambda case: getattr(case, "name", ""))
@given(at=st.integers(0, (1 << 64) - 1), prot=st.sampled_from([p for p in range(64) if p & 3]))
@settings(max_examples=6)
def test_every_flip_of_one_bit(form, levels, twin, at, prot):
    assert levels == len(form.levels)
    for depth in range(levels):
        for word in valid(form, depth, at, prot):
            for flip in (0, *(1 << bit for bit in range(64))):
                assert said(form, word ^ flip, depth) == twin(word ^ flip, levels - depth), hex(word ^ flip)


@pytest.mark.parametrize(("form", "levels", "twin"), CASES, ids=lambda case: getattr(case, "name", ""))
@given(
    word=st.integers(0, (1 << 64) - 1),
    low=st.integers(0, (1 << 12) - 1),
    kept=st.sampled_from([(1 << 64) - 1, (1 << 54) - 1, (1 << 48) - 1, ~(0x7F << 54), -1 << 30, -1 << 39]),
)
def test_random_words(form, levels, twin, word, low, kept):
    for candidate in (word, word & kept | low, word & kept & -4096 | low):
        for depth in range(levels):
            for each in (candidate, candidate | 1, candidate | 0x43):
                assert said(form, each, depth) == twin(each, levels - depth), hex(each)
