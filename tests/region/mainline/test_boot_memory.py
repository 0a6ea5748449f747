"""The memory of a board at boot: what is reserved, and where an area fits."""

import pytest

from swiommu.address import PhysRange, PhysSpace
from swiommu.errors import InvalidArgument, NotAnInteger
from swiommu.region.mainline import BootMemory


class Index:
    """An integer of somebody else's, as numpy's are: its own arithmetic would wrap."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def test_integers_of_other_types_reserve_what_they_say():
    ram = PhysSpace("ram")
    plain, other = (BootMemory([PhysRange(ram.at(0), 8 << 30)], page_size=size) for size in (4096, Index(4096)))
    plain.reserve(0xF000_0000, 0x2000_0000)
    other.reserve(Index(0xF000_0000), Index(0x2000_0000))
    assert other.free() == plain.free() == [(0, 0xF000_0000), (0x1_1000_0000, 8 << 30)]
    assert other.touches_reserved(Index(0xEFFF_F000), Index(0x1001))
    asked = (Index(1 << 30), Index(1 << 20), Index(0), Index(0x1_1100_0000))
    assert other.find(*asked) == plain.find(*map(int, asked)) == 0xB000_0000


@pytest.mark.parametrize(
    ("start", "size", "error", "sentence"),
    [
        (
            -4096,
            8192,
            InvalidArgument,
            "8192 bytes at -0x1000 can't be reserved: they are no 64-bit range",
        ),
        (4096, -1, InvalidArgument, "-1 bytes at 0x1000 can't be reserved: they are no 64-bit range"),
        (
            (1 << 64) - 4096,
            8192,
            InvalidArgument,
            "8192 bytes at 0xfffffffffffff000 can't be reserved: they are no 64-bit range",
        ),
        (4096.5, 4096, NotAnInteger, "start must be an integer, not 4096.5"),
        ("ab", "cd", NotAnInteger, "start must be an integer, not 'ab'"),
        (None, 4096, NotAnInteger, "start must be an integer, not None"),
        (True, 4096, NotAnInteger, "start must be an integer, not True"),
    ],
)
def test_what_is_no_range_is_not_reserved(start, size, error, sentence):
    memory = BootMemory([PhysRange(PhysSpace("ram").at(0), 8 << 30)])
    with pytest.raises(error) as caught:
        memory.reserve(start, size)
    assert str(caught.value) == sentence
    memory.reserve(4096, 0)
    assert memory.free() == [(0, 8 << 30)]
