"""What most formats share: levels of equal width, permissions in two neighbouring bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from swiommu.address import Prot
from swiommu.errors import InvalidArgument
from swiommu.pagetable.format import Level

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PROTS", "chosen", "equal_levels"]

PROTS: Final = tuple(Prot(bits) for bits in range(64))
"""Every `Prot` by its number: making one anew takes longer than all the rest of decoding a word."""


def equal_levels(
    count: int, *, leaves: int, page: int = 12, bits: int = 9, top: int = 0, orders: tuple[int, ...] = ()
) -> tuple[Level, ...]:
    """``count`` levels of ``bits`` bits over pages of ``2**page`` bytes, the root of ``top`` bits more (or fewer).

    The lowest ``leaves`` levels can hold leaves, the lowest of all those of ``orders`` too.

    >>> [(level.shift, level.bits, level.can_leaf) for level in equal_levels(3, leaves=2, top=2)]
    [(30, 11, False), (21, 9, True), (12, 9, True)]
    """
    return tuple(
        Level(
            shift=page + bits * below,
            bits=bits + (top if below == count - 1 else 0),
            can_leaf=below < leaves,
            orders=orders if below == 0 else (),
        )
        for below in reversed(range(count))
    )


def chosen(what: str, value: int, known: Iterable[int]) -> int:
    """``value``, if it is one of ``known``. Raises `InvalidArgument`, naming them.

    >>> chosen("levels of VT-d", 6, (3, 4, 5))
    Traceback (most recent call last):
    swiommu.errors.InvalidArgument: levels of VT-d can be 3, 4, 5, not 6
    """
    if value not in (known := tuple(known)):
        raise InvalidArgument(f"{what} can be {', '.join(map(str, known))}, not {value}")
    return value
