"""What every call of a domain refuses before anything has changed, with the whole sentences."""

import pytest

from swiommu.address import BusSpace, PhysRange, PhysSpace, Prot
from swiommu.errors import AddressOverflow, InvalidArgument, OutOfRange, SpaceMismatch
from swiommu.iommu import PagedDomain
from swiommu.memory import Frames

ram = PhysSpace("ram", width=40)
bus = BusSpace("nvme", width=48)


def piece(start, size):
    return PhysRange(ram.at(start), size)


WIDE = BusSpace("wide", width=64)
DOOR = [
    (lambda d: d.alloc(0), InvalidArgument, "0 bytes can't be allocated: at least 1 is needed"),
    (lambda d: d.alloc(1, 3), InvalidArgument, "an alignment of 3 bytes is neither 0 nor a power of two"),
    (
        lambda d: d.alloc(1, prot=Prot.NOEXEC),
        InvalidArgument,
        "protection 0x8: READ or WRITE is needed, no bit above PRIV exists",
    ),
    (lambda d: d.alloc(1, limit=-1), InvalidArgument, "-1 is no highest bus address"),
    (
        lambda d: d.bind([piece(0, 4096)], Prot.NONE),
        InvalidArgument,
        "protection 0x0: READ or WRITE is needed, no bit above PRIV exists",
    ),
    (
        lambda d: d.map(WIDE.at(0), ram.at(0), 0),
        InvalidArgument,
        "a range of 0 bytes at BusAddr(wide:0x0): at least 1 is needed",
    ),
    (
        lambda d: d.map(WIDE.at(0), ram.at(0x80), 4096),
        InvalidArgument,
        "0x1000 bytes at 0x0 to 0x80 are not aligned to the granule 0x1000",
    ),
    (
        lambda d: d.map(WIDE.at((1 << 64) - 4096), ram.at(0), 8192),
        AddressOverflow,
        "0x2000 bytes at BusAddr(wide:0xfffffffffffff000) leave the 64-bit space",
    ),
    (
        lambda d: d.map(WIDE.at(0), ram.at((1 << 40) - 4096), 8192),
        AddressOverflow,
        "0x2000 bytes at PhysAddr(ram:0xfffffff000) leave the 40-bit space",
    ),
    (
        lambda d: d.map(WIDE.at(1 << 48), ram.at(0), 4096),
        OutOfRange,
        "0x1000 bytes at 0x1000000000000 leave the 48-bit input of format 'mock'",
    ),
    (
        lambda d: d.unmap(WIDE.at(0), 0),
        InvalidArgument,
        "a range of 0 bytes at BusAddr(wide:0x0): at least 1 is needed",
    ),
    (
        lambda d: d.unmap(WIDE.at(8), 4096),
        InvalidArgument,
        "0x1000 bytes at 0x8 are not aligned to the granule 0x1000",
    ),
    (
        lambda d: d.unmap(WIDE.at(1 << 48), 4096),
        OutOfRange,
        "0x1000 bytes at 0x1000000000000 leave the 48-bit input of format 'mock'",
    ),
    (
        lambda d: d.map(bus.at(0), ram.at(0), 4096),
        SpaceMismatch,
        "BusAddr(nvme:0x0) is no address of the domain's bus space 'wide'",
    ),
    (
        lambda d: d.map(4096, ram.at(0), 4096),
        SpaceMismatch,
        "4096 is no address of the domain's bus space 'wide'",
    ),
    (
        lambda d: d.map(WIDE.at(0), WIDE.at(0), 4096),
        SpaceMismatch,
        "BusAddr(wide:0x0) is no address of the domain's output space 'ram'",
    ),
    (
        lambda d: d.bind([PhysRange(PhysSpace("other").at(0), 4096)]),
        SpaceMismatch,
        "PhysAddr(other:0x0) is no address of the domain's output space 'ram'",
    ),
    (lambda d: d.bind([4096]), SpaceMismatch, "4096 is no range of addresses"),
    (
        lambda d: d.iova_to_phys(bus.at(0)),
        SpaceMismatch,
        "BusAddr(nvme:0x0) is no address of the domain's bus space 'wide'",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "text"), DOOR, ids=[f"{n}-{text[:30]}" for n, (_, _, text) in enumerate(DOOR)]
)
def test_the_door(call, error, text):
    pool = Frames(ram.at(0x4000_0000), 1 << 20)
    domain = PagedDomain(WIDE, frames=pool, output_space=ram)
    free = (pool.free_count, domain.iova.free_bytes)
    with pytest.raises(error) as caught:
        call(domain)
    assert (type(caught.value), str(caught.value)) == (error, text)
    assert (pool.free_count, domain.iova.free_bytes) == free
    domain.check()
