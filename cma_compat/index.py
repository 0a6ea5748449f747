"""Which live chunk an address means: one index over all regions, by bus space and start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swiommu.address import Address, BusAddr, BusSpace, as_integer
from swiommu.errors import AddressInUse, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cma_compat.structures import Backend, cma_region
    from swiommu.region import Chunk

__all__ = ["Index", "Live"]


@attrs.define(eq=False)
class Live:
    """A live chunk: whose it is, the alignment asked for, and every address that it was handed out by."""

    reg: cma_region
    chunk: Chunk[Any]
    align: int
    backend: Backend
    addresses: list[BusAddr] = attrs.field(factory=list, init=False)


class Index:
    """Live chunks by the addresses of their views.

    >>> from cma_compat.structures import cma_region
    >>> index, left, right = Index(), BusSpace("left"), BusSpace("right")
    >>> for space in (left, right):
    ...     index.add(Live(cma_region(0, 4096), None, 4096, None), space.at(0x1000))
    >>> index.find(left.at(0x1000)).addresses
    [BusAddr(left:0x1000)]
    >>> index.find(0x1000)
    Traceback (most recent call last):
    ...
    swiommu.errors.InvalidArgument: 0x1000 is the start of 2 chunks, in left, right: say which by a bus address
    """

    def __init__(self) -> None:
        self._by_address: dict[tuple[BusSpace, int], Live] = {}
        self._by_value: dict[int, list[tuple[BusSpace, Live]]] = {}

    def add(self, live: Live, address: BusAddr) -> None:
        """Let ``address`` mean this chunk; again changes nothing, `AddressInUse` if it means another."""
        key = (address.space, address.value)
        known = self._by_address.setdefault(key, live)
        if known is not live:
            raise AddressInUse(f"{address!r} is the start of a live chunk already", start=address.value)
        if not any(address.space is space for space, other in self._by_value.get(key[1], ()) if other is live):
            self._by_value.setdefault(key[1], []).append((address.space, live))
            live.addresses.append(address)

    def find(self, addr: object) -> Live:
        """The chunk that starts there: `NotFound` if none does, `InvalidArgument` if a plain number means several."""
        if isinstance(addr, BusAddr):
            live = self._by_address.get((addr.space, addr.value))
            if live is None:
                raise NotFound(f"no chunk starts at {addr!r}", start=addr.value)
            return live
        if isinstance(addr, Address):
            raise InvalidArgument(f"{addr!r} is no bus address")
        addr = as_integer(addr, "a bus address")
        meant = self._by_value.get(addr, [])
        if not meant:
            raise NotFound(f"no chunk starts at {addr:#x}", start=addr)
        chunks = len({id(live) for _, live in meant})
        if chunks > 1:
            spaces = ", ".join(space.name for space, _ in meant)
            raise InvalidArgument(
                f"{addr:#x} is the start of {chunks} chunks, in {spaces}: say which by a bus address", start=addr
            )
        return meant[0][1]

    def remove(self, live: Live) -> None:
        """Forget all addresses of a chunk."""
        for address in live.addresses:
            del self._by_address[address.space, address.value]
            # Views of one chunk may have the same value in different spaces: the first of them takes all along.
            left = [entry for entry in self._by_value.pop(address.value, ()) if entry[1] is not live]
            if left:
                self._by_value[address.value] = left
        live.addresses.clear()

    def all(self) -> Iterable[Live]:
        """Every live chunk, once."""
        return {id(live): live for live in self._by_address.values()}.values()

    def check(self) -> None:
        """Both orders hold the same; `AssertionError` with a dump."""
        keys = {(space, value) for value, entries in self._by_value.items() for space, _ in entries}
        assert keys == self._by_address.keys(), f"{keys} {self._by_address.keys()}"
        assert all(live.addresses for live in self.all()), f"{self._by_address}"
