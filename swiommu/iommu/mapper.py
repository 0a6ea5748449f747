"""What a domain asks of the part of it that translates, or of the part that stands where nothing translates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from swiommu.iommu.gather import IotlbGather
    from swiommu.layer import Layer, Node
    from swiommu.locking import Lock
    from swiommu.pagetable import Rules

Runs = list[tuple[int, int]]
"""(start, stop) of pieces of an output space, in order."""

__all__ = ["DomainStats", "Mapper", "Place", "Runs"]


@attrs.define
class DomainStats:
    """What a domain has cost so far; one object for its whole life, always up to date.

    ``maps``: contiguous pieces mapped, ``unmaps``: releases, and unmap calls that met something,
    ``invalidations``: commands, of which ``flushes`` are of everything at once,
    ``table_pages``: now and at its peak, those that wait for a flush included, ``walk_refs``: table entries that cold
    walks read to touch every leaf mapped, once, ``map_bytes``: bytes mapped, whole granules in a paged domain.
    """

    maps: int = 0
    unmaps: int = 0
    invalidations: int = 0
    flushes: int = 0
    table_pages: int = 0
    table_pages_peak: int = 0
    walk_refs: int = 0
    map_bytes: int = 0


class Place(Protocol):
    """What a mapper knows of its domain's place in a stack.

    ``guarded``: others are above or below, who are asked before an unmap.
    """

    node: Node
    lock: Lock
    guarded: bool

    @property
    def name(self) -> str:
        """The name of the domain's bus space, which errors use."""
        ...

    def require_unused(self, start: int, stop: int) -> None:
        """`Busy` if a domain above uses a byte of the range."""
        ...

    def notify(self, start: int, stop: int) -> None:
        """Let the domains above unmap what leads into the range, if that is how it is done."""
        ...

    def forget_references(self, iova: int, size: int) -> None:
        """Let the domain below know that these bus addresses lead nowhere any more."""
        ...


class Mapper(Protocol):
    """Maps bus addresses to an output space, in plain ints; each operation of a domain enters it once.

    The domain sets ``place`` before the first call; ``stats`` counts what is done. What can't be done raises and has
    changed nothing; what could not be given back yet stays with the mapper.
    """

    place: Place
    stats: DomainStats

    @property
    def layer(self) -> Layer:
        """What devices go through."""
        ...

    @property
    def pgsize_bitmap(self) -> int:
        """The sizes of its pages, one bit each."""
        ...

    @property
    def unit(self) -> int:
        """What the bus ranges of mappings are rounded to, in bytes."""
        ...

    @property
    def rules(self) -> Rules:
        """What the kernel's driver of its format does differently from others."""
        ...

    @property
    def enforces(self) -> bool:
        """Whether a device is kept from what is not mapped."""
        ...

    @property
    def owes(self) -> bool:
        """Whether something could not be given back yet, for `settle` to try again."""
        ...

    # -- operations

    def choose(self, runs: Runs, size: int, align: int, bits: int, highest: int, at: int | None = None) -> int:
        """Map ``runs`` of the output space, one behind the other, at ``size`` bus bytes that a mapping will own.

        ``at`` is where; None: the mapper chooses, none above ``highest``. ``bits`` is the protection. `NoSpace`,
        `AddressInUse`, `NotSupported`.
        """
        ...

    def map(self, iova: int, paddr: int, size: int, bits: int, *, owned: bool) -> None:
        """Map whole granules where the caller says; ``owned``: inside of what a mapping owns."""
        ...

    def before_unmap(self, iova: int, size: int, *, only_ask: bool = False) -> None:
        """Ask the domains above, and let them unmap first; split leaves of which only a part goes, if that is done.

        ``only_ask``: `Busy` if a part of a leaf would have to go, and it is not split.
        """
        ...

    def unmap(self, iova: int, size: int, gather: IotlbGather | None = None, *, owned: bool = False) -> int:
        """Clear translations from ``iova`` on, up to the first hole; the bytes cleared, see `Domain.unmap`.

        ``owned``: it is all that a mapping owns. Holes are passed over then, and all its bus addresses go back.
        """
        ...

    def lookup(self, iova: int) -> tuple[int, int, int, int] | None:
        """Where ``iova`` leads, the size of the leaf that says so, and start and stop of what it says; None for a hole.

        Where no leaf is, it is the page size, and what one record or the whole layer says.
        """
        ...

    def leading_to(self, start: int, stop: int) -> Iterable[tuple[int, int]]:
        """Ranges of bus addresses that lead to the outputs from ``start`` to ``stop``, ascending."""
        ...

    def reserve(self, first: int, last: int, *, direct: bool, dry: bool) -> None:
        """Withhold bus addresses from `choose`; ``direct``: the caller may `map` them. ``dry``: only ask.

        `AddressInUse` if some are in use.
        """
        ...

    def dry_run(self) -> AbstractContextManager[Any]:
        """What is mapped inside and released again leaves nothing behind."""
        ...

    # -- its life

    def settle(self) -> None:
        """Give back what is owed."""
        ...

    def close(self) -> None:
        """Give up what it holds; what waits for a flush is flushed. `Busy` while something is mapped by hand."""
        ...

    def check(self, mappings: Iterable[Any]) -> None:
        """`AssertionError` with a dump if it contradicts itself, or the domain's live ``mappings``."""
        ...
