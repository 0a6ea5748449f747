import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swiommu.errors import AddressInUse, InvalidArgument, NoSpace, NotFound
from swiommu.iommu import TopDownIova

PAGE = 4096
PAGES = 48


class IovaMachine(RuleBasedStateMachine):
    """Beside a set of pages, in a space small enough that holes matter."""

    LOW = 2

    def __init__(self):
        super().__init__()
        self.iova = TopDownIova(self.LOW * PAGE, PAGES * PAGE - 1)
        self.free = set(range(self.LOW, PAGES))
        self.live: list[tuple[int, int]] = []
        self.reserved: set[int] = set()

    @rule(size=st.integers(1, 12 * PAGE), limit=st.integers(0, PAGES * PAGE), order=st.integers(0, 4))
    def alloc(self, size, limit, order):
        pages = -(-size // PAGE)
        step = 1 << order
        while step < pages:
            step *= 2
        places = [
            at
            for at in range(0, PAGES, step)
            if (at + pages) * PAGE - 1 <= limit and self.free.issuperset(range(at, at + pages))
        ]
        try:
            at = self.iova.alloc(size, limit, PAGE << order)
        except NoSpace:
            assert not places
            return
        assert at == max(places) * PAGE
        self.free -= set(range(at // PAGE, at // PAGE + pages))
        self.live.append((at // PAGE, pages))

    @rule(left=st.integers(0, 3))
    def fill(self, left):
        """All but a few pages, one by one: what is asked next meets a full space, or the lowest page."""
        while len(self.free) > left:
            self.alloc(PAGE, (1 << 48) - 1, 0)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free_a_part(self, data):
        at, pages = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        cut = data.draw(st.integers(1, pages))
        self.iova.free(at * PAGE, cut * PAGE)
        self.free |= set(range(at, at + cut))
        if cut < pages:
            self.live.append((at + cut, pages - cut))

    @rule(at=st.integers(0, PAGES + 2), pages=st.integers(1, 6))
    def free_anything(self, at, pages):
        inside = set(range(at, at + pages)) & set(range(self.LOW, PAGES))
        if inside and inside & (self.free | self.reserved):
            with pytest.raises(NotFound) as caught:
                self.iova.free(at * PAGE, pages * PAGE)
            assert str(caught.value) == f"{pages * PAGE:#x} bus bytes at {at * PAGE:#x} are not all taken"

    @rule(at=st.integers(0, PAGES + 2), pages=st.integers(1, 6))
    def take(self, at, pages):
        inside = set(range(at, at + pages)) & set(range(self.LOW, PAGES))
        try:
            self.iova.take(at * PAGE, pages * PAGE)
        except AddressInUse:
            assert not inside <= self.free
        else:
            assert inside <= self.free
            self.free -= inside
            if inside:
                self.live.append((min(inside), len(inside)))

    @rule(low=st.integers(0, (PAGES + 2) * PAGE), size=st.integers(1, 5 * PAGE))
    def reserve(self, low, size):
        wanted = set(range(low // PAGE, (low + size - 1) // PAGE + 1)) & set(range(self.LOW, PAGES))
        try:
            self.iova.reserve(low, low + size - 1)
        except AddressInUse:
            assert not wanted <= self.free | self.reserved
        else:
            assert wanted <= self.free | self.reserved
            self.free -= wanted
            self.reserved |= wanted

    @invariant()
    def agrees(self):
        self.iova.check()
        assert self.iova.free_bytes == len(self.free) * PAGE


TestIova = IovaMachine.TestCase
TestIova.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


class FromZero(IovaMachine):
    """The lowest page is address 0."""

    LOW = 0


TestFromZero = FromZero.TestCase
TestFromZero.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)


def test_from_the_top_aligned_to_the_next_power_of_two():
    # Linux gives 0xfffff000, 0xffff8000, 0xffff7000, 0xfffc0000, 0xfffbe000: its cursor does not look above itself.
    iova = TopDownIova()
    got = [iova.alloc(pages * PAGE, 0xFFFF_FFFF, PAGE) for pages in (1, 4, 1, 40, 2)]
    assert got == [0xFFFFF000, 0xFFFF8000, 0xFFFFE000, 0xFFFC0000, 0xFFFFC000]


def test_the_default_leaves_the_first_page_out_and_uses_48_bits():
    iova = TopDownIova()
    assert iova.alloc(1, (1 << 64) - 1, 1) == (1 << 48) - PAGE
    with pytest.raises(NoSpace) as caught:
        iova.alloc(PAGE, PAGE - 1, PAGE)
    assert str(caught.value) == "no 4096 free bus bytes aligned to 0x1000 at or below 0xfff"
    assert iova.alloc(PAGE, 2 * PAGE - 1, PAGE) == PAGE


def test_address_0_is_the_last_that_a_space_from_0_gives():
    iova = TopDownIova(0, 0x1FFF)
    assert [iova.alloc(PAGE, 0x1FFF), iova.alloc(PAGE, 0x1FFF)] == [0x1000, 0]
    with pytest.raises(NoSpace):
        iova.alloc(PAGE, 0x1FFF)


def test_a_limit_inside_a_granule_counts_whole_granules():
    iova = TopDownIova()
    assert iova.alloc(PAGE, 0x3FFE, PAGE) == 0x2000
    assert iova.alloc(PAGE, 0x3FFF, PAGE) == 0x3000


def test_what_is_reserved_is_never_given_back():
    iova = TopDownIova()
    iova.reserve(0xFEE0_0000, 0xFEEF_FFFF)
    iova.reserve(0xFEE0_0000, 0xFEE0_0FFF)  # again is allowed
    with pytest.raises(NotFound) as caught:
        iova.free(0xFEE0_0000, 0x1000)
    assert str(caught.value) == "0x1000 bus bytes at 0xfee00000 are not all taken"
    assert iova.alloc(0x0100_0000, 0xFEFF_FFFF, 1) == 0xFD00_0000


def test_taking_what_is_taken():
    iova = TopDownIova()
    iova.take(0x3000, 0x1000)
    with pytest.raises(AddressInUse) as caught:
        iova.take(0x2000, 0x2000)
    assert str(caught.value) == "0x2000 bus bytes at 0x2000 are not all free"
    with pytest.raises(AddressInUse) as caught:
        iova.reserve(0x3000, 0x4FFF)
    assert str(caught.value) == "0x3000 to 0x4fff can't be reserved: part of it is taken"


@pytest.mark.parametrize("args", [(4096, 4096), (1, 0xFFFF), (0x8000, 0x4FFF), (-4096, 0xFFFF), (0, 0xFFFE)])
def test_bounds_that_can_not_be(args):
    with pytest.raises(InvalidArgument) as caught:
        TopDownIova(*args)
    assert str(caught.value) == f"{args[0]:#x} to {args[1]:#x} is no range of whole granules of 4096 bytes"


@pytest.mark.parametrize(("size", "align"), [(0, 1), (-1, 1), (1, 0), (1, 3)])
def test_sizes_and_alignments_that_can_not_be(size, align):
    with pytest.raises(InvalidArgument) as caught:
        TopDownIova().alloc(size, 1 << 40, align)
    assert str(caught.value) == (
        f"{size} bus bytes with alignment {align}: at least 1 byte and a power of two are needed"
    )


def test_the_failure_that_was_ordered_changes_nothing():
    iova = TopDownIova()
    iova.fail_nth(2)
    first = iova.alloc(PAGE, 0xFFFF, PAGE)
    before = iova.free_bytes
    with pytest.raises(NoSpace) as caught:
        iova.alloc(PAGE, 0xFFFF, PAGE)
    assert str(caught.value) == "no 4096 bus bytes: this call was told to fail"
    assert iova.free_bytes == before
    assert iova.alloc(PAGE, 0xFFFF, PAGE) == first - PAGE


def test_check_finds_what_is_falsified():
    for falsify in (
        lambda i: i._space._starts.append(1),
        lambda i: i._space._stops.update({i._space._starts[0]: 1 << 60}),
        lambda i: i._space._by_class[3].append(9),
        lambda i: i._reserved.add(i._space._starts[0], i._space._starts[0] + 1),
    ):
        iova = TopDownIova()
        iova.check()
        falsify(iova)
        with pytest.raises(AssertionError):
            iova.check()
