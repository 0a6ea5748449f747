"""Which events make one call: begins with ends, inner calls with outer ones, and what contradicts left alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.trace import Calls, Kind, may_block

PAGE = 4096


@pytest.fixture
def calls_of(trace_of):
    """Calls of texts, one a line; a text may be a pair with its pid."""

    def make(*texts):
        pairs = [text if isinstance(text, tuple) else (text, 7) for text in texts]
        lines = [f"  t-{pid}  [000] .....     1.{number:06}: {text}" for number, (text, pid) in enumerate(pairs)]
        return trace_of("\n".join(["# tracer: nop", *lines, ""])).calls

    return make


def map_(iova, size=PAGE, paddr=0x5000_0000):
    return f"map: IOMMU: iova=0x{iova:x} - 0x{iova + size:x} paddr=0x{paddr:x} size={size}"


def unmap(iova, size=PAGE):
    return f"unmap: IOMMU: iova=0x{iova:x} - 0x{iova + size:x} size={size} unmapped_size={size}"


def mapped(addr, size=64, phys=0x5000_0000, device="eth"):
    return f"dma_map_page: {device} dir=TO_DEVICE dma_addr={addr:x} size={size} phys_addr={phys:x} attrs="


def unmapped(addr, size=64):
    return f"dma_unmap_page: eth dir=TO_DEVICE dma_addr={addr:x} size={size} attrs="


def mapped_list(addr, size, phys=0x5000_0000):
    lists = f"dma_addrs={{{addr:#x}}} sizes={{{size:#x}}} phys_addrs={{{phys:#x}}}"
    return f"dma_map_sg: eth dir=TO_DEVICE nents=1/1 ents=1/1 {lists} attrs="


def unmapped_list(phys=0x5000_0000):
    return f"dma_unmap_sg: eth dir=TO_DEVICE phys_addrs={{{phys:#x}}} attrs="


def start(count=4, name="reserved"):
    return f"cma_alloc_start: name={name} count={count} align=2"


def retry(pfn, name="reserved"):
    return f"cma_alloc_busy_retry: name={name} pfn={pfn:#x} page=0c1 count=4 align=2"


def finish(pfn, count=4, errno=0, name="reserved"):
    return f"cma_alloc_finish: name={name} pfn={pfn:#x} page=0c1 count={count} align=2 errorno={errno}"


ALLOC = "dma_alloc: cam dir=BIDIRECTIONAL dma_addr={:x} size=16384 virt_addr=0000000000000abc flags=GFP_KERNEL attrs="
FREE = "dma_free: cam dir=BIDIRECTIONAL dma_addr={:x} size=16384 virt_addr=0000000000000abc attrs="
QI = "qi_submit: iotlb_inv dmar0: 0x10032 0x1000 0x0 0x0"
FLUSH = "cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 3 [{}] addr 0x1000 pages 0x1 mask 0x0"
FREED = "iova_free: (free_iova_fast+0x0/0x200) iovad=0xff pfn=0x{:x} size=1"


def relations(calls):
    return [(call.begin, call.end, call.outer) for call in calls]


def test_an_area_call_is_a_start_retries_and_a_finish_inside_of_the_allocation(calls_of):
    calls = list(calls_of(start(), retry(0x10), retry(0x14), finish(0x18), ALLOC.format(0x18000)))
    assert relations(calls) == [(-1, 3, -1), (0, -1, 3), (0, -1, 3), (0, -1, 4), (-1, -1, -1)]
    assert calls[3].inside == calls[1:3]
    assert calls[3].ended == [calls[0]]
    assert calls[4].inside == [calls[3]]
    assert calls[4].inside_of(Kind.CMA_BUSY_RETRY) == []


def test_a_lost_start_or_finish_is_not_made_up(calls_of):
    calls = calls_of(finish(0x18), start(), start(), finish(0x20), finish(0x24))
    assert relations(calls) == [(-1, -1, -1), (-1, -1, -1), (-1, 3, -1), (2, -1, -1), (-1, -1, -1)]


def test_an_answer_of_another_area_or_task_belongs_to_another_call(calls_of):
    calls = calls_of(start(name="video"), finish(0x18), (start(), 8), (finish(0x20), 9))
    assert relations(calls) == [(-1, -1, -1)] * 4


def test_maps_are_those_of_the_call_behind_them_from_its_address_on(calls_of):
    calls = list(calls_of(map_(0x1000), map_(0x8000), map_(0x9000), mapped(0x8010, 2 * PAGE - 0x10)))
    assert [call.outer for call in calls] == [-1, 3, 3, -1]
    assert [call.row for call in calls[3].inside] == [1, 2]


@pytest.mark.parametrize("addr", [0x7000, 0x9000, (1 << 64) - 1])
def test_maps_elsewhere_are_anothers(addr, calls_of):
    assert [call.outer for call in calls_of(map_(0x8000), mapped(addr))] == [-1, -1]


def test_a_map_has_the_probe_line_before_it(calls_of):
    probe = "iommu_map: (iommu_map+0x0/0xf8) domain=0xff iova=0x{:x} paddr=0x50000000 size=4096 prot=0x7"
    calls = calls_of(
        probe.format(0x8000), map_(0x8000), mapped(0x8000), map_(0x9000), probe.format(0xB000), map_(0xA000)
    )
    assert [call.begin for call in calls] == [-1, 0, -1, -1, -1, -1]


def test_an_unmap_before_its_dma_event_is_inside_of_it_with_all_that_it_causes(calls_of):
    flush, everything = FLUSH.format("0x1000-0x1fff"), FLUSH.format("0x0-0xffffffffffffffff")
    calls = list(calls_of(unmap(0x1000), QI, flush, FREED.format(1), unmapped(0x1010), everything, FREED.format(2)))
    assert [call.outer for call in calls] == [4, 0, 0, 0, -1, -1, 5]
    assert [inner.row for inner in calls[4].inside] == [0]


def test_an_unmap_behind_a_freed_list_or_memory_is_inside_of_it(calls_of):
    listed = [map_(0x8000), mapped_list(0x8000, 16), unmapped_list(), unmap(0x8000)]
    assert [call.outer for call in calls_of(*listed)] == [1, -1, -1, 2]
    memory = [map_(0x8000, 4 * PAGE), ALLOC.format(0x8000), FREE.format(0x8000), unmap(0x8000, 4 * PAGE)]
    assert [call.outer for call in calls_of(*memory)] == [1, -1, -1, 2]


def test_a_list_without_translation_causes_no_unmap(calls_of):
    """The same list, mapped and unmapped twice; of one whose begin is lost nothing is known, so it may have one."""
    direct = [mapped_list(0x5000_0000, 16), unmapped_list(), unmap(0x5000_0000)]
    assert [call.outer for call in calls_of(*direct)] == [-1, -1, -1]
    assert [call.outer for call in calls_of(unmapped_list(), unmap(0x8000))] == [-1, 0]


def test_a_map_that_no_call_claims_ends_with_its_last_page(calls_of):
    calls = calls_of(mapped(0x10), map_(0x8000, 2 * PAGE), map_(0x2000), unmap(0x8000), unmap(0x9000), mapped(0x10))
    assert [call.end for call in calls] == [-1, 4, -1, -1, -1, -1]
    assert [ended.row for ended in list(calls)[4].ended] == [1]
    assert calls.still_mapped == [[(2, 0x2000)]]
    assert calls.has_dma


def test_without_drivers_events_an_unmap_ends_maps_at_once(calls_of):
    calls = calls_of(map_(0x8000), (map_(0x9000), 8), unmap(0x8000, 2 * PAGE))
    assert not calls.has_dma
    assert [call.end for call in calls] == [2, 2, -1]


def test_bounces_are_those_of_the_devices_next_map_of_these_pieces(calls_of):
    bounce = "swiotlb_bounced: dev_name: {} dma_mask=ff dev_addr={:x} size=10 FORCE"
    texts = [bounce.format(*each) for each in (("eth", 0x1000), ("eth", 0x2000), ("nvme", 0x1000), ("eth", 0x1000))]
    calls = calls_of(*texts, mapped(0x77, phys=0x1000), mapped(0x88, phys=0x2000))
    # Of two the newer one: the older was of a call that failed, as was what is left.
    assert [call.outer for call in calls] == [-1, -1, -1, 4, -1, -1]


def test_maps_before_a_mark_are_those_of_user_space(calls_of):
    mark = "tracing_mark_write: VFIO MAP iova=0x8000 size=0x2000 prot=rw rc={}"
    assert [call.outer for call in calls_of(map_(0x8000), map_(0x9000), mark.format(0))] == [2, 2, -1]
    assert [call.outer for call in calls_of(map_(0x8000), map_(0x9000), mark.format(-14))] == [-1, -1, -1]


def test_a_probed_call_has_its_return(calls_of):
    asked = "iova_alloc: (alloc_iova_fast+0x0/0x378) iovad=0xff size=1 limit=0xfffff flush=0"
    slow = "iova_slow: (alloc_iova+0x0/0x2e0) iovad=0xff size=1 limit=0xfffff aligned=1"
    slow_ret = "iova_slow_ret: (alloc_iova_fast+0x14c/0x378 <- alloc_iova) pfn_hi=0xfffff pfn_lo=0xfffff"
    answer = "iova_alloc_ret: (iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast) ret=0xfffff"
    calls = calls_of(asked, slow, slow_ret, answer, answer)
    assert relations(calls) == [(-1, 3, -1), (-1, 2, -1), (1, -1, -1), (0, -1, -1), (-1, -1, -1)]


SOME = [
    start(),
    retry(0x10),
    finish(0x10),
    finish(0, errno=-16),
    ALLOC.format(0x10000),
    FREE.format(0x10000),
    map_(0x10000, 4 * PAGE),
    unmap(0x10000, 4 * PAGE),
    map_(0x8000),
    mapped(0x8000),
    unmap(0x8000),
    unmapped(0x8000),
    mapped_list(0x8000, 16),
    unmapped_list(),
    QI,
    FREED.format(8),
    "cma_release: name=reserved pfn=0x10 page=0c1 count=4",
    "tracing_mark_write: VFIO MAP iova=0x8000 size=0x1000 prot=rw rc=0",
]


@given(texts=st.lists(st.tuples(st.sampled_from(SOME), st.sampled_from([7, 8])), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_whatever_the_order_the_relations_agree(texts, trace_of):
    lines = [f"  t-{pid}  [000] .....     1.{number:06}: {text}" for number, (text, pid) in enumerate(texts)]
    calls = Calls(trace_of("\n".join([*lines, ""])).table)
    seen = list(calls)
    assert [call.row for call in seen] == list(range(len(texts)))
    for call in seen:
        context = call.event.context
        assert call.begin < call.row
        assert call.end == -1 or call.end > call.row
        for other in (call.begin, call.outer):
            assert other == -1 or seen[other].event.context == context
        assert all(inner.outer == call.row and inner.row < call.row for inner in call.inside)
        assert all(ended.end == call.row for ended in call.ended)
        assert call.outer == -1 or call.outer < call.row or call in seen[call.outer].inside
        if call.event.kind is Kind.IOMMU_MAP:
            still = any(call.row in dict(run) for run in calls.still_mapped)
            assert (call.outer >= 0) + (call.end >= 0) + still == 1
    some = {Kind.DMA_MAP, Kind.DMA_ALLOC, Kind.IOMMU_MAP, Kind.CMA_FINISH}
    chosen = [call for call in seen if call.event.kind in some]
    for one, same in zip(chosen, calls.of(some), strict=True):
        assert one[:5] == same[:5]
        assert [inner.row for inner in one.inside if inner.event.kind in some] == [inner.row for inner in same.inside]
    assert [call.event for call in chosen] == list(calls.table.of(some))


def test_gfp_flags_say_whether_the_area_may_serve():
    assert [may_block(gfp) for gfp in ("GFP_USER|__GFP_ZERO", "GFP_DMA32|GFP_ATOMIC", "none")] == [True, False, False]
