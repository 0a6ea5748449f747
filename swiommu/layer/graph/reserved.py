"""Reserved regions: ranges of a space that are not for everybody, and why."""

from __future__ import annotations

import enum
from typing import SupportsIndex

import attrs

from swiommu.address import as_integer
from swiommu.errors import InvalidArgument

__all__ = ["Reserved", "ReservedKind"]


class ReservedKind(enum.StrEnum):
    """What a range is reserved for, by the kernel's words (``IOMMU_RESV_*``)."""

    DIRECT = "direct"  # firmware uses it: every device must find it at the same address in memory
    DIRECT_RELAXABLE = "direct-relaxable"  # the same at boot, until the device is given to somebody
    RESERVED = "reserved"  # nothing is to be found there: never allocated, never led to
    MSI = "msi"  # messages: taken out before anything is translated
    SW_MSI = "sw-msi"  # messages, at an address that the owner of the space chose and maps


def _number(value: SupportsIndex) -> int:
    return as_integer(value, "start or size of a reserved region")


@attrs.frozen(order=True)
class Reserved:
    """``size`` bytes from ``start`` of the input space of the node that says it; `InvalidArgument` for no range.

    >>> print(Reserved(0xFEE0_0000, 0x10_0000, ReservedKind.MSI))
    msi region [0xfee00000, 0xfef00000)
    """

    start: int = attrs.field(converter=_number)
    size: int = attrs.field(converter=_number)
    kind: ReservedKind = attrs.field(default=ReservedKind.RESERVED, converter=ReservedKind)

    def __attrs_post_init__(self) -> None:
        if self.size < 1 or self.start < 0:
            raise InvalidArgument(
                f"no region of {self.size:#x} bytes at {self.start:#x} can be reserved: at least 1 at 0 or above",
                start=self.start,
                size=self.size,
            )

    @property
    def stop(self) -> int:
        """One past the last byte."""
        return self.start + self.size

    def __str__(self) -> str:
        return f"{self.kind} region [{self.start:#x}, {self.stop:#x})"
