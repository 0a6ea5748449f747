"""Designs whose page tables have other granules than 4 KiB: what is taken, mapped and counted comes in those."""

import pytest

from swiommu.pagetable import FORMATS
from swiommu.replay import Design, Knobs, Status, equal_plan, replay
from swiommu.requests import workload_of
from swiommu.trace import read_trace

COARSE = [name for name, form in FORMATS.items() if form.granule > 4096]


@pytest.fixture(scope="module")
def camera():
    return workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))


@pytest.fixture(scope="module")
def disk(workload_of_trace):
    pieces = [(0x4000_1800, 0x1000), (0x4123_F000, 0x2800)]
    return workload_of_trace(*pieces)


@pytest.fixture(scope="module")
def workload_of_trace(tmp_path_factory):
    def made(*pieces):
        path = tmp_path_factory.mktemp("maps") / "maps.trace"
        lines = [
            f"   a-1   [000] .....   {number}.000000: dma_map_page: nvme0 dir=TO_DEVICE dma_addr=0 size={size} "
            f"phys_addr={phys:x} attrs=0x0"
            for number, (phys, size) in enumerate(pieces, 1)
        ]
        path.write_text("# tracer: nop\n" + "\n".join(lines) + "\n")
        return workload_of(read_trace(str(path)))

    return made


def test_there_are_formats_of_16_and_64_kib():
    assert {FORMATS[name].granule for name in COARSE} == {16384, 65536}


@pytest.mark.parametrize(
    ("name", "allocator"), [*((name, "") for name in COARSE), ("mock64k", "buddy"), ("arm-lpae-16k-s2", "bitmap")]
)
def test_allocs_take_whole_granules(camera, name, allocator):
    granule = FORMATS[name].granule
    design = Design(name, "", driver="paged", format=name, allocator=allocator)
    outcome = replay(camera, design, equal_plan(camera), keep_places=True)
    assert outcome.ledger.lost.total() == 0
    extents = [extent for handle in outcome.places.values() for extent in outcome.extents_of(handle)]
    assert extents
    assert all(start % granule == size % granule == 0 for start, size in extents)


@pytest.mark.parametrize("name", ["mock64k", "arm-lpae-64k-s2"])
def test_single_frames_are_granules(camera, name):
    design = Design(name, "", driver="paged", format=name)
    outcome = replay(camera, design, equal_plan(camera), Knobs(frames="random"), keep_places=True)
    assert outcome.ledger.lost.total() == 0
    sizes = {size for handle in outcome.places.values() for _, size in outcome.extents_of(handle)}
    assert min(sizes) == FORMATS[name].granule


@pytest.mark.parametrize("name", [*COARSE, "arm-lpae-4k-s1"])
def test_a_piece_is_mapped_by_the_granules_that_hold_it(disk, name):
    granule = FORMATS[name].granule
    outcome = replay(disk, Design(name, "", driver="paged", format=name), equal_plan(disk), keep_places=True)
    assert bytes(outcome.status) == bytes([Status.SERVED]) * 2
    assert [outcome.extents_of(handle) for handle in outcome.places.values()] == [
        [(phys // granule * granule, -(-(phys + size) // granule) * granule - phys // granule * granule)]
        for phys, size in ((0x4000_1800, 0x1000), (0x4123_F000, 0x2800))
    ]


def test_a_64k_granule_wastes_and_walks_otherwise_than_4k(camera):
    """One leaf of 64 KiB takes the place of 16; what is asked for in 4 KiB is rounded up further."""
    small, large = (
        replay(camera, Design(name, "", driver="paged", format=name), equal_plan(camera))
        for name in ("arm-lpae-4k-s1", "arm-lpae-64k-s1")
    )
    assert large.counters.walk_refs < small.counters.walk_refs
    assert large.ledger.mean()[0].internal > small.ledger.mean()[0].internal
