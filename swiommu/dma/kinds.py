"""The small words of the DMA API: directions, attributes, masks, the error value."""

from __future__ import annotations

import enum
from typing import Final

from swiommu.address import Prot, as_integer
from swiommu.errors import InvalidArgument

__all__ = ["DMA_BIT_MASK", "DMA_MAPPING_ERROR", "DmaAttr", "DmaDirection"]

DMA_MAPPING_ERROR: Final = (1 << 64) - 1
"""The value of a bus address that is none: all ones of ``dma_addr_t``, 64 bits on every bus.

Source: include/linux/dma-mapping.h.
"""


class DmaDirection(enum.IntEnum):
    """Which way data moves, by the kernel's numbers; NONE is never right in a mapping.

    >>> DmaDirection.FROM_DEVICE.prot
    <Prot.WRITE: 2>
    """

    BIDIRECTIONAL = 0
    TO_DEVICE = 1
    FROM_DEVICE = 2
    NONE = 3

    @property
    def device_reads(self) -> bool:
        """Whether the processor's data goes to the device: a bounce buffer is filled by ``sync_for_device``."""
        return self in {DmaDirection.BIDIRECTIONAL, DmaDirection.TO_DEVICE}

    @property
    def device_writes(self) -> bool:
        """Whether the device's data comes back: a bounce buffer is emptied by ``sync_for_cpu`` and unmap."""
        return self in {DmaDirection.BIDIRECTIONAL, DmaDirection.FROM_DEVICE}

    @property
    def prot(self) -> Prot:
        """What a translation must allow; READ means that the device reads memory."""
        return (Prot.READ if self.device_reads else Prot.NONE) | (Prot.WRITE if self.device_writes else Prot.NONE)


class DmaAttr(enum.IntFlag):
    """``DMA_ATTR_*`` by the kernel's bits, those that change what happens here.

    SKIP_CPU_SYNC: unmap copies nothing back; PRIVILEGED: translations apply to privileged accesses only; MMIO: the
    target is a device's registers, which never bounce and to which a direct bus adds no offset.
    """

    NONE = 0
    SKIP_CPU_SYNC = 1 << 5
    PRIVILEGED = 1 << 9
    MMIO = 1 << 10


def DMA_BIT_MASK(bits: int) -> int:  # noqa: N802 - the kernel's name
    """The mask of a device that drives ``bits`` address lines, 1 to 64; else `InvalidArgument`.

    >>> hex(DMA_BIT_MASK(32))
    '0xffffffff'
    """
    bits = as_integer(bits, "bits")
    if not 1 <= bits <= 64:
        raise InvalidArgument(f"a DMA mask has 1 to 64 bits, not {bits}")
    return (1 << bits) - 1
