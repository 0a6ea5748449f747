import copy
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysRange, PhysSpace
from swiommu.errors import (
    AddressInUse,
    AddressOverflow,
    Busy,
    InvalidArgument,
    NoMemory,
    NotFound,
    OutOfRange,
)
from swiommu.memory import Frames, FrameState
from swiommu.memory.blocks import append_run

RAM = PhysSpace("ram", width=40)
START = 0x1000  # in pfns


def frames_of(count, max_order=10, start=START):
    return Frames(RAM.at(start * 4096), count * 4096, max_order=max_order)


def snapshot(frames):
    frames.check()
    states = [frames.state(pfn) for pfn in range(frames.start_pfn, frames.start_pfn + frames.count)]
    return states, frames.free_runs(), frames.free_count, [set(starts) for starts in frames._blocks._starts]


@st.composite
def worn_frames(draw):
    """Frames of odd bounds of which single frames and runs are taken."""
    frames = frames_of(draw(st.integers(1, 150)), draw(st.integers(0, 6)), draw(st.integers(0, 40)))
    for position in draw(st.sets(st.integers(0, frames.count - 1), max_size=40)):
        frames.occupy(frames.start_pfn + position, 1)
    return frames


class TestTaking:
    def test_everything_is_free_at_first_in_blocks_as_large_as_can_be(self):
        frames = Frames(RAM.at(0x4010_1000), 16 << 20)
        assert (frames.start_pfn, frames.count, frames.free_count) == (0x40101, 4096, 4096)
        assert (frames.page_size, frames.max_order) == (4096, 10)
        assert frames.range == PhysRange(RAM.at(0x4010_1000), 16 << 20)
        assert frames.free_runs() == [(0x40101, 4096)]
        assert frames._blocks.largest() == 1024
        frames.check()

    def test_the_smallest_block_that_is_large_enough_goes_first_and_the_lowest_of_these(self):
        frames = frames_of(8)
        assert [frames.take(0), frames.take(1), frames.take(0), frames.take(1)] == [0x1000, 0x1002, 0x1001, 0x1004]
        frames.give(0x1001, 1)
        assert frames.take(0) == 0x1001
        assert frames.take(0) == 0x1006

    def test_alignment_is_that_of_the_absolute_pfn(self):
        frames = frames_of(8, start=0x1003)
        assert frames.take(2) == 0x1004
        with pytest.raises(NoMemory) as info:
            frames.take(2)
        assert str(info.value) == "no free block of 4 frames (order 2): 4 of 8 frames are free, 2 in the largest block"
        assert (info.value.errno, info.value.count) == (errno.ENOMEM, 4)

    def test_another_page_size_changes_the_pfns_only(self):
        frames = Frames(RAM.at(0x8000_0000), 1 << 20, page_size=65536)
        assert (frames.start_pfn, frames.count) == (0x8000, 16)
        assert frames.take_pages(16) == [(0x8000, 16)]

    def test_no_block_is_larger_than_max_order(self):
        frames = frames_of(4096, 10)
        assert frames.has_room(10)
        assert not frames.has_room(11)
        with pytest.raises(NoMemory) as info:
            frames.take(11)
        assert str(info.value) == (
            "no free block of 2048 frames (order 11): 4096 of 4096 frames are free, 1024 in the largest block"
        )

    @given(frames=worn_frames(), order=st.integers(0, 8))
    def test_has_room_says_whether_take_would_serve(self, frames, order):
        before = snapshot(frames)
        room = frames.has_room(order)
        assert snapshot(frames) == before
        try:
            frames.take(order)
        except NoMemory:
            assert not room
            assert snapshot(frames) == before
        else:
            assert room
            frames.check()


class TestTakingMany:
    @given(frames=worn_frames(), n=st.integers(1, 160))
    def test_pages_are_those_of_as_many_single_takes(self, frames, n):
        twin = copy.deepcopy(frames)
        before = snapshot(frames)
        expected = []
        try:
            for _ in range(n):
                append_run(expected, twin.take(0), 1)
        except NoMemory:
            with pytest.raises(NoMemory):
                frames.take_pages(n)
            assert snapshot(frames) == before
        else:
            assert frames.take_pages(n) == expected
            assert snapshot(frames) == snapshot(twin)

    @given(frames=worn_frames(), n=st.integers(1, 160), orders=st.lists(st.integers(0, 7), min_size=1, max_size=4))
    def test_largest_first_is_the_loop_of_the_kernel(self, frames, n, orders):
        twin = copy.deepcopy(frames)
        before = snapshot(frames)
        expected, left = [], n
        while left:
            usable = [order for order in orders if 1 << order <= left and twin.has_room(order)]
            if not usable:
                break
            append_run(expected, twin.take(max(usable)), 1 << max(usable))
            left -= 1 << max(usable)
        if left:
            with pytest.raises(NoMemory):
                frames.take_largest_first(n, orders)
            assert snapshot(frames) == before
        else:
            assert frames.take_largest_first(n, orders) == expected
            assert snapshot(frames) == snapshot(twin)

    def test_what_fits_no_large_block_comes_from_small_ones(self):
        frames = frames_of(2048, start=0x1001)
        assert frames.take_largest_first(515) == [(0x1200, 512), (0x1001, 1), (0x1800, 1), (0x1002, 1)]
        assert frames.take_largest_first(1024) == [(0x1400, 1024)]
        assert frames.take_largest_first(505) == [(0x1003, 505)]
        frames.check()

    def test_eight_thousand_pages_are_a_few_runs(self):
        frames = frames_of(16384)
        assert frames.take_pages(8000) == [(START, 8000)]
        assert frames.free_count == 8384

    def test_texts_of_shortage(self):
        frames = frames_of(8)
        frames.occupy(START + 3, 1)
        with pytest.raises(NoMemory) as info:
            frames.take_pages(8)
        assert str(info.value) == "8 frames wanted: 7 of 8 frames are free, 4 in the largest block"
        with pytest.raises(NoMemory) as info:
            frames.take_largest_first(7, (2, 1))
        assert str(info.value) == (
            "no free blocks of orders 2, 1 for 1 of 7 frames: 7 of 8 frames are free, 4 in the largest block"
        )


class TestGivingAndOccupying:
    def test_parts_and_several_runs_at_once_may_be_given(self):
        frames = frames_of(64)
        frames.take(4)
        frames.take_pages(20)
        frames.give(START + 5, 20)
        assert frames.free_runs() == [(START + 5, 20), (START + 36, 28)]
        frames.give(START, 5)
        frames.give(START + 25, 11)
        assert frames.free_runs() == [(START, 64)]
        assert frames.has_room(6)
        frames.check()

    @pytest.mark.parametrize(
        ("pfn", "count", "text"),
        [
            (0x0FFF, 2, "2 frames at 0xfff are not all in frames [0x1000, 0x1010)"),
            (0x100F, 2, "2 frames at 0x100f are not all in frames [0x1000, 0x1010)"),
            (0x1002, 4, "frame 0x1004 of the 4 frames at 0x1002 is not taken"),
        ],
    )
    def test_what_is_not_taken_cannot_be_given_or_marked(self, pfn, count, text):
        frames = frames_of(16)
        frames.take(2)
        before = snapshot(frames)
        for call in (frames.give, lambda pfn, count: frames.set_state(pfn, count, FrameState.PINNED)):
            with pytest.raises(NotFound) as info:
                call(pfn, count)
            assert str(info.value) == text
            assert (info.value.pfn, info.value.count) == (pfn, count)
            assert snapshot(frames) == before

    def test_giving_twice_is_refused(self):
        frames = frames_of(16)
        pfn = frames.take(1)
        frames.give(pfn, 2)
        with pytest.raises(NotFound, match=r"^frame 0x1000 of the 2 frames at 0x1000 is not taken$"):
            frames.give(pfn, 2)

    def test_occupy_takes_exactly_that_range(self):
        frames = frames_of(64)
        frames.occupy(START + 7, 10)
        assert frames.free_runs() == [(START, 7), (START + 17, 47)]
        with pytest.raises(AddressInUse) as info:
            frames.occupy(START + 15, 4)
        assert str(info.value) == "2 of the 4 frames at 0x100f are not free"
        assert (info.value.errno, info.value.pfn, info.value.count) == (errno.EADDRINUSE, START + 15, 4)
        with pytest.raises(OutOfRange) as info:
            frames.occupy(START + 62, 4)
        assert str(info.value) == "4 frames at 0x103e are not all in frames [0x1000, 0x1040)"
        assert frames.free_count == 54
        frames.check()

    def test_occupy_each_takes_all_or_none(self):
        frames = frames_of(64)
        frames.occupy(START + 7, 1)
        before = frames.free_runs()
        for pfns, kind, sentence in [
            ([START, START + 7], AddressInUse, "frame 0x1007 is not free, or was asked for twice"),
            ([START, START + 3, START], AddressInUse, "frame 0x1000 is not free, or was asked for twice"),
            ([START, START + 64], OutOfRange, "frame 0x1040 is not in frames [0x1000, 0x1040)"),
        ]:
            with pytest.raises(kind) as info:
                frames.occupy_each(pfns)
            assert str(info.value) == sentence
            assert frames.free_runs() == before
        with frames.dry_run():
            frames.occupy_each([START + 33, START + 2])
            assert frames.free_count == 61
            frames.check()
        assert frames.free_runs() == before
        frames.check()

    def test_a_frame_outside_is_never_free(self):
        frames = frames_of(4)
        assert [frames.is_free(START + i) for i in (-1, 0, 3, 4)] == [False, True, True, False]


class TestStates:
    def test_a_taken_frame_says_what_it_is_in(self):
        frames = frames_of(8)
        frames.take(2)
        frames.set_state(START + 1, 2, FrameState.MOVABLE)
        states = [frames.state(START + i) for i in range(5)]
        assert states == [
            FrameState.TAKEN,
            FrameState.MOVABLE,
            FrameState.MOVABLE,
            FrameState.TAKEN,
            FrameState.FREE,
        ]
        frames.give(START, 4)
        assert frames.take(2) == START
        assert frames.state(START + 1) is FrameState.TAKEN

    def test_pinned_frames_are_not_given_back_until_unpinned(self):
        frames = frames_of(8)
        frames.take(3)
        frames.set_state(START + 5, 1, FrameState.PINNED)
        before = snapshot(frames)
        with pytest.raises(Busy) as info:
            frames.give(START, 8)
        assert str(info.value) == "frame 0x1005 is pinned: 8 frames at 0x1000 are not given back"
        assert (info.value.errno, info.value.pfn) == (errno.EBUSY, 0x1005)
        assert snapshot(frames) == before
        frames.set_state(START + 5, 1, FrameState.TAKEN)
        frames.give(START, 8)
        assert frames.free_count == 8

    def test_texts(self):
        frames = frames_of(8)
        with pytest.raises(InvalidArgument) as info:
            frames.set_state(START, 1, FrameState.FREE)
        assert str(info.value) == "frames become free by give, not by set_state"
        with pytest.raises(NotFound) as info:
            frames.state(START + 8)
        assert str(info.value) == "frame 0x1008 is outside frames [0x1000, 0x1008)"


class TestFailingOnPurpose:
    TAKES = (
        lambda frames: frames.take(3),
        lambda frames: frames.take_pages(8),
        lambda frames: frames.take_largest_first(8),
    )

    @pytest.mark.parametrize("take", TAKES)
    def test_the_nth_take_fails_once_and_changes_nothing(self, take):
        frames = frames_of(64)
        frames.fail_nth(2)
        take(frames)
        before = snapshot(frames)
        with pytest.raises(NoMemory) as info:
            take(frames)
        assert str(info.value) == "a take of 8 frames fails because fail_nth asked for it"
        assert snapshot(frames) == before
        take(frames)
        assert frames.free_count == 48

    def test_refused_arguments_and_other_calls_do_not_count(self):
        frames = frames_of(64)
        frames.fail_nth(1)
        with pytest.raises(InvalidArgument):
            frames.take(-1)
        frames.occupy(START, 2)
        frames.give(START, 2)
        with pytest.raises(NoMemory, match=r"^a take of 1 frames fails because fail_nth asked for it$"):
            frames.take(0)

    def test_nothing_leaks_whichever_call_fails(self):
        for nth in range(1, 6):
            frames = frames_of(600, start=0x1010)
            frames.fail_nth(nth)
            taken = []
            for n in (1, 40, 513, 3, 20):
                try:
                    taken += frames.take_largest_first(n)
                except NoMemory:
                    frames.check()
            for pfn, count in taken:
                frames.give(pfn, count)
            assert snapshot(frames) == snapshot(frames_of(600, start=0x1010))


class TestRefusals:
    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda frames: frames.take(-1), "a block of order -1: orders start at 0"),
            (lambda frames: frames.has_room(-2), "a block of order -2: orders start at 0"),
            (lambda frames: frames.take_pages(0), "0 frames wanted: at least 1 is needed"),
            (lambda frames: frames.take_largest_first(-4), "-4 frames wanted: at least 1 is needed"),
            (lambda frames: frames.take_largest_first(4, ()), "no order to take blocks of"),
            (lambda frames: frames.take_largest_first(4, (0, -1)), "a block of order -1: orders start at 0"),
            (lambda frames: frames.give(START, 0), "a run of 0 frames at 0x1000: at least 1 is needed"),
            (lambda frames: frames.occupy(START, -1), "a run of -1 frames at 0x1000: at least 1 is needed"),
            (lambda frames: frames.fail_nth(0), "the next call is number 1, not 0"),
        ],
    )
    def test_what_can_never_be_right_is_invalid(self, call, text):
        frames = frames_of(8)
        before = snapshot(frames)
        with pytest.raises(InvalidArgument) as info:
            call(frames)
        assert str(info.value) == text
        assert info.value.errno == errno.EINVAL
        assert snapshot(frames) == before

    @pytest.mark.parametrize(
        ("start", "size", "options", "error", "text"),
        [
            (
                0x1000,
                0x1800,
                {},
                InvalidArgument,
                "0x1800 bytes at PhysAddr(ram:0x1000) are not whole pages of 4096 bytes",
            ),
            (
                0x800,
                0x1000,
                {},
                InvalidArgument,
                "0x1000 bytes at PhysAddr(ram:0x800) are not whole pages of 4096 bytes",
            ),
            (0x1000, 0, {}, InvalidArgument, "a range of 0 bytes at PhysAddr(ram:0x1000): at least 1 is needed"),
            (0, 4096, {"page_size": 3000}, InvalidArgument, "a page of 3000 bytes is not a power of two"),
            (0, 4096, {"max_order": -1}, InvalidArgument, "the largest order is -1, below 0"),
            (
                0xFF_FFFF_F000,
                8192,
                {},
                AddressOverflow,
                "0x2000 bytes at PhysAddr(ram:0xfffffff000) leave the 40-bit space",
            ),
        ],
    )
    def test_memories_that_cannot_be(self, start, size, options, error, text):
        with pytest.raises(error) as info:
            Frames(RAM.at(start), size, **options)
        assert str(info.value) == text


class TestCheck:
    def test_it_sees_a_frame_that_blocks_and_states_disagree_on(self):
        frames = frames_of(4)
        frames._states[2] = FrameState.TAKEN
        with pytest.raises(AssertionError) as info:
            frames.check()
        assert str(info.value).startswith(
            "free by blocks: [(4096, 4)], by state: [(4096, 2), (4099, 1)]",
        )

    def test_it_sees_a_wrong_count(self):
        frames = frames_of(4)
        frames.free_count = 3
        with pytest.raises(AssertionError, match=r"^free_count 3, but 4 frames are free"):
            frames.check()

    def test_it_sees_halves_that_were_not_melted(self):
        frames = frames_of(4)
        frames._blocks._starts[2].clear()
        for half in (START, START + 2):
            frames._blocks._add(half, 1)
        with pytest.raises(AssertionError, match=r"^unmelted block 0x1000 of order 1"):
            frames.check()


@pytest.mark.parametrize("order", [64, 4096, 4_294_963_200])
def test_an_order_beyond_all_memory_is_refused_in_a_short_sentence(order):
    frames = Frames(PhysSpace("ram").at(0), 1 << 20)
    with pytest.raises(NoMemory) as caught:
        frames.take(order)
    assert str(caught.value) == (
        f"no free block of 2**{order} frames (order {order}): 256 of 256 frames are free, 256 in the largest block"
    )
