"""What ``swiotlb=`` on a kernel's command line asks for, as ``setup_io_tlb_npages`` reads it."""

import pytest

from swiommu.dma import PoolParameter, pool_parameter


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("quiet", None),
        ("xswiotlb=1 swiotlbx=2", None),
        ("swiotlb=100", PoolParameter(100)),
        ("swiotlb=2048,force", PoolParameter(2048, force=True)),
        ("swiotlb=2048,noforce", PoolParameter(2048, noforce=True)),
        ("swiotlb=2048,4,force", PoolParameter(2048, 4, force=True)),
        ("swiotlb=2048,4", PoolParameter(2048, 4)),
        ("swiotlb=,4", PoolParameter(None, 4)),
        ("swiotlb=2048,0", PoolParameter(2048, 1)),
        ("swiotlb=force", PoolParameter(force=True)),
        ("swiotlb=noforce", PoolParameter(noforce=True)),
        ("swiotlb=0x100", PoolParameter(0x100)),
        ("swiotlb=0X1F,0x3,force", PoolParameter(0x1F, 3, force=True)),
        ("swiotlb=0200", PoolParameter(0o200)),
        ("swiotlb=0", PoolParameter(0)),
        ("swiotlb=089", PoolParameter(0, 89)),  # octal ends before the 8, and areas need no comma
        ("swiotlb=force,512", PoolParameter()),  # the kernel reads the number first
        ("swiotlb=512,forced", PoolParameter(512)),
        ("swiotlb", PoolParameter()),
        ("swiotlb=", PoolParameter()),
        ('swiotlb="512,force"', PoolParameter(512, force=True)),
        ("swiotlb=512 swiotlb=force", PoolParameter(512, force=True)),
        ("swiotlb=512 swiotlb=1024", PoolParameter(1024)),
        ("quiet -- swiotlb=512", None),
    ],
)
def test_what_is_read(line, said):
    assert pool_parameter(line) == said


@pytest.mark.parametrize(
    ("slots", "areas", "cpus", "without_areas", "with_areas"),
    [
        (None, None, 1, 32768, 32768),
        (None, None, 1024, 32768, 131072),
        (100, None, 1, 128, 128),
        (100, None, 3, 128, 512),
        (0, None, 1, 0, 128),
        (3000, None, 1, 3072, 4096),
        (3000, 5, 1, 3072, 4096),
        (512, 7, 1, 512, 1024),
    ],
)
def test_slots_are_rounded_up(slots, areas, cpus, without_areas, with_areas):
    said = PoolParameter(slots, areas)
    assert said.pool_slots(cpus=cpus, has_areas=False) == without_areas
    assert said.pool_slots(cpus=cpus, has_areas=True) == with_areas


def test_numbers_without_end_are_read_as_one_that_is_too_large():
    assert pool_parameter(f"swiotlb={'9' * 10_000}").slots > 1 << 64
    assert pool_parameter(f"swiotlb=0x{'f' * 10_000},{'7' * 9_999}").areas > 1 << 64
