import errno
import logging

import pytest

import cma_compat
from cma_compat import IS_ERR_VALUE, CmaContext, cma_region, error_value
from swiommu.region import ALLOCATORS, BestFit, RegisteredAllocator, allocator_names

PAGE = 4096
MIB = 1 << 20
BASE = 0x4000_0000


@pytest.fixture
def cma():
    return CmaContext()


@pytest.fixture
def camera(cma):
    region = cma_region(BASE, MIB, name="camera")
    assert cma.cma_region_register(region) == 0
    return region


def test_errors_are_the_top_4095_values():
    for width in (32, 64):
        top = 1 << width
        assert [IS_ERR_VALUE(value, width) for value in (0, top - 4096, top - 4095, top - 1)] == [False] * 2 + [
            True
        ] * 2
        assert error_value(1, width) == top - 1
        assert IS_ERR_VALUE(error_value(4095, width), width)


@pytest.mark.parametrize(
    ("start", "size", "result"),
    [
        (0, 0, -errno.EINVAL),
        (BASE, -PAGE, -errno.EINVAL),
        (-PAGE, PAGE, -errno.EINVAL),
        (2**64 - PAGE, PAGE, -errno.EINVAL),  # start + size wraps to 0
        (2**64 - 2 * PAGE, PAGE, 0),
        (BASE - PAGE, 2 * PAGE, -errno.EADDRINUSE),
        (BASE + MIB - 1, 1, -errno.EADDRINUSE),
        (BASE, MIB, -errno.EADDRINUSE),
        (BASE - PAGE, PAGE, 0),
        (BASE + MIB, 1, 0),
    ],
)
def test_what_can_be_registered(cma, camera, start, size, result):
    region = cma_region(start, size)
    assert cma.cma_region_register(region) == result
    assert region.registered is (result == 0)


def test_registering_nothing_or_twice(cma, camera):
    buffer = cma.cma_alloc_from_region(camera, PAGE)
    assert cma.cma_region_register(None) == -errno.EINVAL
    assert cma.cma_region_register(camera) == -errno.EADDRINUSE
    assert (camera.registered, camera.users, cma.cma_free(buffer)) == (True, 1, 0)


def test_a_region_is_unregistered_only_when_empty(cma, camera):
    buffer = cma.cma_alloc_from_region(camera, PAGE)
    assert cma.cma_region_unregister(camera) == -errno.EBUSY
    assert cma.cma_free(buffer) == 0
    assert cma.cma_region_unregister(camera) == 0
    assert cma.cma_region_unregister(camera) == -errno.EINVAL
    assert cma.cma_region_unregister(None) == -errno.EINVAL
    assert cma.cma_alloc_from_region(camera, PAGE).value == error_value(errno.EINVAL)
    assert cma.cma_region_register(camera) == 0
    assert cma.cma_alloc_from_region(camera, MIB).value == BASE


@pytest.mark.parametrize(
    ("size", "alignment", "code"),
    [
        (0, 0, errno.EINVAL),
        (-1, 0, errno.EINVAL),
        (PAGE, 3, errno.EINVAL),
        (PAGE, -PAGE, errno.EINVAL),
        (MIB + 1, 0, errno.ENOMEM),
        (2**64 - 1, 0, errno.ENOMEM),  # rounds to 0 in the posting
        (PAGE, 2 * BASE, errno.ENOMEM),
    ],
)
def test_what_an_allocation_answers(cma, camera, size, alignment, code):
    assert cma.cma_alloc_from_region(camera, size, alignment).value == error_value(code)
    assert (camera.users, camera.free_space) == (0, MIB)


def test_no_region_and_another_contexts_region_are_invalid(cma, camera):
    assert cma.cma_alloc_from_region(None, PAGE, 0).value == error_value(errno.EINVAL)
    assert CmaContext().cma_alloc_from_region(camera, PAGE, 0).value == error_value(errno.EINVAL)


def test_only_exact_starts_of_live_chunks_are_freed(cma, camera):
    other = cma_region(BASE + MIB, MIB)
    assert cma.cma_region_register(other) == 0
    first, second = cma.cma_alloc_from_region(camera, 2 * PAGE), cma.cma_alloc_from_region(other, PAGE)
    assert (first.value, second.value) == (BASE, BASE + MIB)
    assert [cma.cma_free(addr) for addr in (first + PAGE, 0, -1, 2**64, second, second, first)] == [
        *[-errno.ENOENT] * 4,
        0,
        -errno.ENOENT,
        0,
    ]
    assert (camera.users, other.users, camera.free_space, other.free_space) == (0, 0, MIB, MIB)


def test_errors_have_the_width_of_the_bus():
    cma = CmaContext(width=32, page_size=16384)
    region = cma_region(2**32 - 32768, 16384)
    assert cma.cma_region_register(cma_region(2**32 - 16384, 16384)) == -errno.EINVAL
    assert cma.cma_region_register(region) == 0
    assert cma.cma_alloc_from_region(region, 0).value == 2**32 - errno.EINVAL
    assert cma.cma_alloc_from_region(region, 1).value == 2**32 - 32768
    assert region.free_space == 0


def test_a_missing_allocator_is_tried_once_and_only_when_it_would_matter(cma, caplog):
    region = cma_region(BASE, MIB, alloc_name="na")
    assert cma.cma_region_register(region) == 0
    assert cma.cma_alloc_from_region(region, 2 * MIB).value == error_value(errno.ENOMEM)
    assert not region.used
    with caplog.at_level(logging.WARNING, "cma_compat"):
        assert [cma.cma_alloc_from_region(region, PAGE).value for _ in range(2)] == [error_value(errno.ENOMEM)] * 2
    assert region.used
    assert [record.getMessage() for record in caplog.records] == [
        f"region 0x40000000 has no allocator: no allocator is named 'na'; there are: bf, {', '.join(allocator_names())}"
    ]


def test_our_own_allocators_serve_by_name(cma):
    region = cma_region(BASE, MIB, alloc_name="bitmap")
    assert cma.cma_region_register(region) == 0
    assert cma.cma_alloc_from_region(region, PAGE).value == BASE
    assert region.served_by.allocator.name == "bitmap"


class Repeating(BestFit):
    """Answers the same place for ever."""

    def alloc(self, size, align):
        super().alloc(size, align)
        return self.start


def test_an_address_that_is_taken_already_is_in_use(cma, monkeypatch):
    monkeypatch.setitem(ALLOCATORS._parts, "repeating", RegisteredAllocator(Repeating))
    region = cma_region(BASE, MIB, alloc_name="repeating")
    assert cma.cma_region_register(region) == 0
    assert cma.cma_alloc_from_region(region, PAGE).value == BASE
    assert cma.cma_alloc_from_region(region, PAGE).value == error_value(errno.EADDRINUSE)
    assert (region.users, region.free_space, cma.cma_free(BASE)) == (1, MIB - PAGE, 0)


def test_a_failing_allocator_leaks_nothing(cma, camera):
    buffers = [cma.cma_alloc_from_region(camera, PAGE)]
    for n in range(1, 4):
        camera.served_by.allocator.fail_nth(n)
        answers = [cma.cma_alloc_from_region(camera, PAGE) for _ in range(n)]
        assert [IS_ERR_VALUE(answer) for answer in answers] == [False] * (n - 1) + [True]
        assert answers[-1].value == error_value(errno.ENOMEM)
        buffers += answers[:-1]
    assert [cma.cma_free(buffer) for buffer in buffers] == [0] * len(buffers)
    camera.served_by.check()
    assert (camera.users, camera.free_space) == (0, MIB)


def test_the_functions_work_on_one_default_context():
    region = cma_region(BASE, MIB)
    assert cma_compat.cma_region_register(region) == 0
    buffer = cma_compat.cma_alloc_from_region(region, PAGE, 0)
    assert cma_compat.default_context.cma_free(buffer) == 0
    assert cma_compat.cma_region_unregister(region) == 0
