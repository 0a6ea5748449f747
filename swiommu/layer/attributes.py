"""What a path allows and how memory is seen through it: both meet, layer by layer, towards the stricter.

Permissions are the bits of `Prot` that refuse an access; memory types and shareability are what the remaining bits
(CACHE, MMIO) stand for. Each has a neutral element, so that a layer without an opinion changes nothing.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from swiommu.address import Access, Prot

__all__ = ["NEUTRAL", "PERMISSIONS", "READ_WRITE", "Attributes", "MemoryType", "Shareability", "allowed", "meet_prot"]

READ_WRITE = Prot.READ | Prot.WRITE
PERMISSIONS = READ_WRITE | Prot.NOEXEC | Prot.PRIV
_READ_WRITE, _STICKY, _NOEXEC = int(READ_WRITE), int(Prot.NOEXEC | Prot.PRIV), int(Prot.NOEXEC)
_EXEC = int(Access.EXEC)  # a plain number: this is asked of every layer on every way


class MemoryType(enum.IntEnum):
    """How memory may be accessed, strictest first; a path is as strict as its strictest layer."""

    DEVICE = 0
    NON_CACHEABLE = 1
    WRITE_THROUGH = 2
    WRITE_BACK = 3


class Shareability(enum.IntEnum):
    """Who has to see the same bytes; a path is as widely shared as its widest layer."""

    NONE = 0
    INNER = 1
    OUTER = 2


class Attributes(NamedTuple):
    """Memory type and shareability; ``forced``: the type replaces what the layers above said (Arm's FWB).

    Forcing is the one exception to the meet: with it the order of layers matters.

    >>> device = Attributes(MemoryType.DEVICE, Shareability.OUTER)
    >>> NEUTRAL.then(device) == device.then(NEUTRAL) == device
    True
    >>> device.then(Attributes(MemoryType.WRITE_BACK, Shareability.INNER, forced=True)).memory_type.name
    'WRITE_BACK'
    """

    memory_type: MemoryType = MemoryType.WRITE_BACK
    shareability: Shareability = Shareability.NONE
    forced: bool = False

    def then(self, lower: Attributes) -> Attributes:
        """These attributes, seen through a layer below with its own."""
        return Attributes(
            lower.memory_type if lower.forced else min(self.memory_type, lower.memory_type),
            max(self.shareability, lower.shareability),
            self.forced or lower.forced,
        )

    @classmethod
    def of(cls, prot: Prot, *, forced: bool = False) -> Attributes:
        """What a leaf with ``prot`` says: MMIO is device memory, CACHE write-back, neither non-cacheable.

        Source: ``arm_lpae_prot_to_pte``.
        """
        if prot & Prot.MMIO:
            return cls(MemoryType.DEVICE, Shareability.OUTER, forced)
        if prot & Prot.CACHE:
            return cls(MemoryType.WRITE_BACK, Shareability.INNER, forced)
        return cls(MemoryType.NON_CACHEABLE, Shareability.OUTER, forced)


NEUTRAL = Attributes()
"""What a layer says that has no opinion."""


def meet_prot(one: Prot, other: Prot) -> Prot:
    """The permissions of two layers together: READ and WRITE if both allow, NOEXEC and PRIV if one says so.

    >>> meet_prot(Prot.READ | Prot.WRITE, Prot.READ | Prot.NOEXEC)
    <Prot.READ|NOEXEC: 9>
    """
    a, b = int(one), int(other)
    return Prot(a & b & _READ_WRITE | (a | b) & _STICKY)


def allowed(prot: Prot) -> int:
    """The bits of `Access` that ``prot`` allows; executing is allowed where nothing forbids it.

    >>> Access(allowed(Prot.READ)), Access(allowed(Prot.WRITE | Prot.NOEXEC))
    (<Access.READ|EXEC: 5>, <Access.WRITE: 2>)
    """
    bits = int(prot)
    return bits & _READ_WRITE | (0 if bits & _NOEXEC else _EXEC)
