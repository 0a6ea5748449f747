"""Each limit that a design can meet, met: the error, what a probe answers, and the words."""

from collections import Counter

import pytest

from swiommu.errors import BlockExceeded, NoMemory, NoSpace, OutOfRange, PoolFull, SegmentExceeded
from swiommu.replay import Design, find_design, plan_of_size, replay
from swiommu.replay.backends import make_backend
from swiommu.replay.cause import Cause, Causes, cause_of
from swiommu.replay.designs import Knobs
from swiommu.requests import OpCode, RequestKind

KIB, MIB = 1 << 10, 1 << 20
LOW = 0x2000_0000
SMALL_POOL = Design("small", "a pool of 512 KiB", bounce="all", pool=512 * KIB)


def backend_of(make_workload, design, *requests):
    workload = make_workload(requests, [])
    return make_backend(design, plan_of_size(workload, 8 * MIB), workload, Knobs())


def map_of(make_request, size, *, offset=0, **facts):
    return make_request(0, "MAP", size, pieces=((LOW + offset, size),), **facts)


@pytest.mark.parametrize(
    ("size", "offset", "align", "cause"),
    [
        (256 * KIB, 0, 0xFFF, None),
        (256 * KIB, 0x200, 0, None),  # nobody asked to keep the offset in the page
        (256 * KIB, 0x800, 0xFFF, Cause.SEGMENT),
        (256 * KIB + 1, 0, 0, Cause.SEGMENT),
        (516 * KIB, 0, 0, Cause.SEGMENT),
    ],
)
def test_a_piece_is_bounced_within_one_segment(size, offset, align, cause, make_workload, make_request):
    request = map_of(make_request, size, offset=offset, min_align_mask=align)
    backend = backend_of(make_workload, SMALL_POOL, request)
    assert backend.probe(request, ()) is cause
    if cause is None:
        backend.begin(request, ())
    else:
        with pytest.raises(SegmentExceeded) as caught:
            backend.begin(request, ())
        assert (caught.value.limit, cause_of(caught.value)) == (256 * KIB, cause)


def test_a_full_pool_is_no_segment(make_workload, make_request):
    request = map_of(make_request, 256 * KIB)
    backend = backend_of(make_workload, SMALL_POOL, request)
    handles = [backend.begin(request, ()) for _ in range(2)]
    assert backend.probe(request, ()) is Cause.POOL
    with pytest.raises(PoolFull) as caught:
        backend.begin(request, ())
    assert str(caught.value) == "swiotlb buffer is full (sz: 262144 bytes), total 256 (slots), used 256 (slots)"
    backend.end(request, handles[0])
    assert backend.probe(request, ()) is None


@pytest.mark.parametrize("name", ["passthrough", "cma-bitmap", "software-iommu"])
def test_a_piece_beyond_the_mask(name, make_workload, make_request):
    request = map_of(make_request, 4 * KIB, mask=LOW + 4 * KIB - 2)
    backend = backend_of(make_workload, find_design(name), request)
    assert backend.probe(request, ()) is Cause.MASK
    with pytest.raises(OutOfRange) as caught:
        backend.begin(request, ())
    assert cause_of(caught.value) is Cause.MASK


def test_a_block_beyond_the_largest(make_workload, make_request):
    request = make_request(0, size=4 * MIB + 1)
    backend = backend_of(make_workload, find_design("passthrough"), request)
    assert backend.probe(request, ()) is Cause.BLOCK
    with pytest.raises(BlockExceeded) as caught:
        backend.begin(request, ())
    assert str(caught.value) == "a block of 8388608 bytes is beyond the page allocator's 4194304"


def test_no_bus_address_below_the_mask(make_workload, make_request):
    request = make_request(0, size=8 * KIB, mask=0x1FFF)  # page 0 is never used, and one page is too few
    backend = backend_of(make_workload, find_design("iommu-strict"), request)
    assert backend.probe(request, ()) is Cause.APERTURE
    with pytest.raises(NoSpace) as caught:
        backend.begin(request, ())
    assert cause_of(caught.value) is Cause.APERTURE


def test_what_has_no_class_of_its_own_is_memory():
    assert cause_of(NoMemory("no free block")) is Cause.MEMORY


def test_a_replay_counts_failures_and_losses_by_cause(make_workload, make_request):
    pieces = ((LOW, 516 * KIB), (LOW + MIB, 4 * KIB))
    requests = [
        make_request(0, "MAP", 520 * KIB, pieces=pieces),
        make_request(1, "MAP", 260 * KIB, pieces=((LOW, 260 * KIB),), censored=True),
        make_request(2, size=5 * MIB),
    ]
    workload = make_workload(requests, [(OpCode.BEGIN, index, index) for index in range(3)])
    ledger = replay(workload, SMALL_POOL, plan_of_size(workload, 8 * MIB)).ledger
    assert ledger.losses.counts == {(RequestKind.MAP, Cause.SEGMENT): 1, (RequestKind.ALLOC, Cause.BLOCK): 1}
    assert ledger.failures.counts == {(RequestKind.MAP, Cause.SEGMENT): 2, (RequestKind.ALLOC, Cause.BLOCK): 1}
    assert (ledger.losses.largest, ledger.failures.largest) == (516 * KIB, 516 * KIB)


@pytest.mark.parametrize(
    ("cause", "one", "many"),
    [
        (
            Cause.MASK,
            "it reaches beyond the device's DMA mask, which takes translation or a bounce pool",
            "all reach beyond the device's DMA mask, which takes translation or a bounce pool",
        ),
        (
            Cause.APERTURE,
            "it finds no free bus address below the device's DMA mask",
            "all find no free bus address below the device's DMA mask",
        ),
        (
            Cause.BLOCK,
            "it exceeds the largest block of the page allocator, 4 MiB",
            "all exceed the largest block of the page allocator, 4 MiB",
        ),
        (
            Cause.SEGMENT,
            "it exceeds a bounce segment, 256 KiB in a pool of any size, with pieces of up to 516 KiB",
            "all exceed a bounce segment, 256 KiB in a pool of any size, with pieces of up to 516 KiB",
        ),
        (
            Cause.POOL,
            "it finds no free run of slots in the bounce pool of 1 MiB",
            "all find no free run of slots in the bounce pool of 1 MiB",
        ),
        (Cause.TRANSLATION, "it needs translation", "all need translation"),
        (Cause.MEMORY, "", ""),  # the numbers beside it say that
    ],
)
def test_one_cause_in_words(cause, one, many):
    for number, words in ((1, one), (12_814, many)):
        causes = Causes(Counter({(RequestKind.MAP, cause): number}), largest=516 * KIB)
        assert causes.sentence(RequestKind.MAP, pool=MIB) == words
        assert causes.sentence(RequestKind.ALLOC, pool=MIB) == ""


def test_several_causes_have_their_numbers_the_most_frequent_first():
    counts = {
        (RequestKind.MAP, Cause.POOL): 1,
        (RequestKind.MAP, Cause.MEMORY): 3000,
        (RequestKind.ALLOC, Cause.BLOCK): 9,
    }
    assert Causes(Counter(counts)).sentence(RequestKind.MAP, pool=MIB) == (
        "3,000 find no free memory that would do and 1 finds no free run of slots in the bounce pool of 1 MiB"
    )


def test_one_cause_may_have_its_number_too():
    causes = Causes(Counter({(RequestKind.MAP, Cause.POOL): 619}))
    assert causes.sentence(RequestKind.MAP, pool=MIB, numbered=True) == (
        "619 find no free run of slots in the bounce pool of 1 MiB"
    )


def test_causes_without_those_of_others():
    causes = Causes(Counter({(RequestKind.MAP, Cause.POOL): 5, (RequestKind.ALLOC, Cause.BLOCK): 2}), largest=9)
    others = Causes(Counter({(RequestKind.MAP, Cause.POOL): 3, (RequestKind.ALLOC, Cause.BLOCK): 2}))
    assert causes.without(others) == Causes(Counter({(RequestKind.MAP, Cause.POOL): 2}), largest=9)
