"""Allocators from elsewhere that answer garbage, fail to free, or call back."""

import pytest

from swiommu.address import PhysSpace
from swiommu.errors import AddressInUse, NotFound, SwiommuError
from swiommu.region import BestFit, Region

PAGE = 4096


class Garbage(BestFit):
    """Answers what it is told to, whatever it has taken."""

    answer = None
    name = "garbage"

    def alloc(self, size, align):
        place = super().alloc(size, align)
        return place if self.answer is None else self.answer


BASE = 0x4000_0000


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (
            "x",
            SwiommuError,
            "the allocator 'garbage' answered 'x' for 8192 bytes, which is no address",
        ),
        (
            BASE - PAGE,
            SwiommuError,
            (
                "the allocator 'garbage' answered 0x3ffff000 for 8192 bytes aligned to 8192, "
                "outside the region 0x40000000-0x4000ffff"
            ),
        ),
        (
            BASE + 15 * PAGE,
            SwiommuError,
            (
                "the allocator 'garbage' answered 0x4000f000 for 8192 bytes aligned to 8192, "
                "outside the region 0x40000000-0x4000ffff"
            ),
        ),
        (
            BASE,
            AddressInUse,
            (
                "the allocator 'garbage' answered 0x40000000 for 8192 bytes aligned to 8192, "
                "which overlaps the live Chunk(garbage:0x40000000+0x3000)"
            ),
        ),
        (
            BASE + 2 * PAGE,
            AddressInUse,
            (
                "the allocator 'garbage' answered 0x40002000 for 8192 bytes aligned to 8192, "
                "which overlaps the live Chunk(garbage:0x40000000+0x3000)"
            ),
        ),
        (
            BASE + 5 * PAGE,
            SwiommuError,
            (
                "the allocator 'garbage' answered 0x40005000 for 8192 bytes aligned to 8192, which is not aligned, "
                "and did not take it back: 8192 bytes at 0x40005000 are not allocated"
            ),
        ),
    ],
)
def test_an_allocator_that_answers_garbage_is_refused(answer, error, text):
    allocator = Garbage(BASE, 16 * PAGE)
    region = Region(PhysSpace("garbage").at(BASE), 16 * PAGE, allocator=allocator)
    chunk = region.alloc(3 * PAGE)
    allocator.answer = answer
    with pytest.raises(error) as caught:
        region.alloc(2 * PAGE, 2 * PAGE)
    assert type(caught.value) is error
    assert str(caught.value) == text
    region.check()
    assert (region.chunks(), region.free_space) == ([chunk], 13 * PAGE)
    allocator.answer = None
    region.free(chunk)
    assert region.users == 0


def test_a_misaligned_answer_is_given_back():
    class Misaligned(BestFit):
        def alloc(self, size, align):
            return super().alloc(size, self.page_size)

    region = Region(PhysSpace("ram").at(BASE), 16 * PAGE, allocator=Misaligned(BASE, 16 * PAGE))
    region.alloc(PAGE)
    with pytest.raises(SwiommuError) as caught:
        region.alloc(PAGE, 4 * PAGE)
    assert str(caught.value) == (
        "the allocator 'best_fit' answered 0x40001000 for 4096 bytes aligned to 16384, which is not aligned"
    )
    assert [hole.size for hole in region.holes()] == [15 * PAGE]
    region.check()


def test_an_allocator_that_fails_to_free_leaves_the_chunk_alive():
    class Stubborn(BestFit):
        def free(self, start, size):
            raise NotFound(f"never heard of {start:#x}")

    region = Region(PhysSpace("ram").at(BASE), 16 * PAGE, allocator=Stubborn(BASE, 16 * PAGE))
    chunk = region.alloc(PAGE)
    with pytest.raises(NotFound, match="never heard of 0x40000000"):
        region.free(chunk)
    assert (region.chunks(), region.free_space) == ([chunk], 15 * PAGE)
    region.check()


def test_a_free_is_accounted_before_the_allocator_hears_of_it():
    seen = []

    class Watching(BestFit):
        def free(self, start, size):
            seen.append((region.users, region.free_space))
            with pytest.raises(NotFound):
                region.free(chunk)
            super().free(start, size)

    region = Region(PhysSpace("ram").at(BASE), 16 * PAGE, allocator=Watching(BASE, 16 * PAGE))
    chunk = region.alloc(PAGE)
    region.free(chunk)
    assert seen == [(0, 16 * PAGE)]
    region.check()
