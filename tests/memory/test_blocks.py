"""The buddy's free blocks against definitions that need no cleverness."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from swiommu.memory.blocks import HEAP_SLACK, FreeBlocks, aligned_blocks, append_run

free_sets = st.sets(st.integers(0, 80))


def canonical(free, max_order):
    """Aligned blocks of free frames that lie in no larger one: the definition, tried out block by block."""
    blocks = []
    covered = set()
    for order in range(max_order, -1, -1):
        for start in range(0, max(free, default=0) + 1, 1 << order):
            frames = set(range(start, start + (1 << order)))
            if frames <= free and not frames & covered:
                blocks.append((start, order))
                covered |= frames
    return sorted(blocks)


def built_of(free, max_order):
    blocks = FreeBlocks(max_order)
    for frame in sorted(free, key=lambda frame: frame * 37 % 81):
        blocks.insert(frame, frame + 1)
    return blocks


def held(blocks):
    return sorted((start, order) for order, starts in enumerate(blocks._starts) for start in starts)


@given(start=st.integers(0, 200), count=st.integers(0, 200), max_order=st.integers(0, 6))
def test_aligned_blocks_are_the_largest_that_fit(start, count, max_order):
    frames = set(range(start, start + count))
    assert list(aligned_blocks(start, start + count, max_order)) == canonical(frames, max_order)


@given(free=free_sets, max_order=st.integers(0, 5))
def test_blocks_follow_from_the_set_of_free_frames_alone(free, max_order):
    blocks = built_of(free, max_order)
    blocks.check()
    assert held(blocks) == canonical(free, max_order)
    runs = []
    for frame in sorted(free):
        append_run(runs, frame, 1)
    assert blocks.runs() == runs
    assert blocks.largest() == max((1 << order for _, order in canonical(free, max_order)), default=0)


@given(free=free_sets, max_order=st.integers(0, 5), order=st.integers(0, 6))
def test_take_finds_the_smallest_block_that_is_large_enough_and_the_lowest_of_these(free, max_order, order):
    blocks = built_of(free, max_order)
    fitting = [(size, start) for start, size in canonical(free, max_order) if size >= order]
    expected = min(fitting)[1] if fitting else None
    assert blocks.take(order) == expected
    left = free - set(range(expected, expected + (1 << order))) if fitting else free
    blocks.check()
    assert held(blocks) == canonical(left, max_order)


@given(free=free_sets, max_order=st.integers(0, 5), order=st.integers(0, 5), data=st.data())
def test_take_many_is_take_many_times(free, max_order, order, data):
    at_once = built_of(free, max_order)
    one_by_one = copy.deepcopy(at_once)
    available = sum((1 << size) >> order for _, size in canonical(free, max_order) if size >= order)
    assert at_once.available(order) == available
    count = data.draw(st.integers(0, available))
    runs = []
    for _ in range(count):
        append_run(runs, one_by_one.take(order), 1 << order)
    assert at_once.take_many(order, count) == runs
    at_once.check()
    assert held(at_once) == held(one_by_one)


@given(free=free_sets, max_order=st.integers(0, 5), data=st.data())
def test_cut_removes_exactly_that_run(free, max_order, data):
    blocks = built_of(free | {90}, max_order)
    start, count = data.draw(st.sampled_from(blocks.runs()))
    low = data.draw(st.integers(start, start + count - 1))
    high = data.draw(st.integers(low + 1, start + count))
    blocks.cut(low, high)
    blocks.check()
    assert held(blocks) == canonical((free | {90}) - set(range(low, high)), max_order)


def test_heaps_do_not_grow_with_use():
    blocks = FreeBlocks(10)
    blocks.insert(0, 4096)
    for round_ in range(2000):
        start = round_ * 7 % 4000
        blocks.cut(start, start + 3)
        blocks.insert(start, start + 3)
    blocks.check()
    assert all(
        len(heap) <= 2 * len(starts) + HEAP_SLACK for heap, starts in zip(blocks._heaps, blocks._starts, strict=True)
    )


def test_the_heaps_stay_small_when_single_frames_melt_into_one_block():
    blocks = FreeBlocks(9)
    for frame in range(0, 512, 2):
        blocks.insert(frame, frame + 1)
    for frame in range(1, 512, 2):
        blocks.insert(frame, frame + 1)
        blocks.check()
    assert blocks.runs() == [(0, 512)]
