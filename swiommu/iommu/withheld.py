"""What is kept from a region because its bus addresses are reserved, by all the domains that share the region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.region import Region

__all__ = ["Withheld"]


class Withheld:
    """Chunks that ``region`` must not give out; what several holders keep goes back to it with the last of them.

    Addresses are plain numbers of the region's space, whole pages.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.region import Region
    >>> region = Region(PhysSpace("ram").at(0x4000_0000), 1 << 20)
    >>> withheld = Withheld(region)
    >>> withheld.take("nic", 0x4000_0000, 0x4000_2000); withheld.take("usb", 0x4000_1000, 0x4000_3000)
    >>> withheld.give("nic"); region.chunks()
    [Chunk(ram:0x40000000+0x2000), Chunk(ram:0x40002000+0x1000)]
    >>> withheld.give("usb"); region.users
    0
    """

    def __init__(self, region: Region[Any]) -> None:
        self.region = region
        self._ranges = RangeSet()
        self._holders: dict[int, list[object]] = {}  # by the start of each range

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The parts of ``[start, stop)`` that are not withheld yet."""
        return self._ranges.gaps(start, stop)

    def take(self, holder: object, start: int, stop: int) -> None:
        """Withhold ``[start, stop)`` for ``holder``; `AddressInUse` if the region has given some of the rest out."""
        space: Any = self.region.space
        with self.region.lock:
            for low, high in list(self._ranges.gaps(start, stop)):
                self.region.reserve(space.at(low), high - low)
                self._ranges.add(low, high)
                self._holders[low] = []
            for low, high in self._ranges:
                if low < stop and start < high and not any(each is holder for each in self._holders[low]):
                    self._holders[low].append(holder)

    def give(self, holder: object) -> None:
        """Let the region have again what ``holder`` alone still keeps."""
        space: Any = self.region.space
        with self.region.lock:
            for low, _ in list(self._ranges):
                holders = self._holders[low]
                if any(each is holder for each in holders):
                    self._holders[low] = [each for each in holders if each is not holder]
                    if len(holders) == 1:
                        self.region.free(space.at(low))
                        self._ranges.remove(low)
                        del self._holders[low]
