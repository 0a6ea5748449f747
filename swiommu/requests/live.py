"""Which requests live, by what their end will name; no step takes longer for more of them, however odd the trace."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["LiveRequests"]

_Shape: TypeAlias = "tuple[str, int] | str | None"


class _One(NamedTuple):  # a tuple: there is one for each live request
    request: int
    direction: str
    size: int


class _Several:
    """Requests that live under one key, oldest first: all of them, those of a direction, those of a size as well.

    One that ended is left in the orders that it isn't taken from, until it is the oldest there.
    """

    __slots__ = ("_ended", "_orders", "count")

    def __init__(self) -> None:
        self._orders: dict[_Shape, deque[int]] = {}
        self._ended: set[int] = set()
        self.count = 0

    def add(self, one: _One) -> None:
        for shape in (None, one.direction, (one.direction, one.size)):
            self._orders.setdefault(shape, deque()).append(one.request)
        self.count += 1

    def oldest(self, shape: _Shape) -> int | None:
        order = self._orders.get(shape)
        while order and order[0] in self._ended:
            order.popleft()
        return order[0] if order else None

    def end(self, index: int) -> None:
        self._ended.add(index)
        self.count -= 1


class LiveRequests:
    """Requests by key: a device and a bus address, say, under which several may live at a time.

    >>> live = LiveRequests()
    >>> for index, size in enumerate((4096, 512, 4096)):
    ...     live.enter("nvme0 at 0x1000", index, direction="TO_DEVICE", size=size)
    >>> live.leave("nvme0 at 0x1000", direction="TO_DEVICE", size=512), live.oldest("nvme0 at 0x1000")
    (1, 0)
    >>> live.leave("nvme0 at 0x1000", direction="FROM_DEVICE", size=1)
    0
    """

    def __init__(self) -> None:
        self._live: dict[Hashable, _One | _Several] = {}

    def enter(self, key: Hashable, index: int, *, direction: str, size: int) -> None:
        """A request begins."""
        one, found = _One(index, direction, size), self._live.get(key)
        if found is None:
            self._live[key] = one  # nearly always
            return
        if isinstance(found, _One):
            several = self._live[key] = _Several()
            several.add(found)
            found = several
        found.add(one)

    def leave(self, key: Hashable, *, direction: str, size: int) -> int | None:
        """The one that ends: the oldest that agrees in size (0: not told) and direction, else the oldest; or None."""
        found = self._live.get(key)
        if found is None:
            return None
        if isinstance(found, _One):
            del self._live[key]
            return found.request
        index = found.oldest((direction, size) if size else direction)
        if index is None:
            index = found.oldest(None)
        assert index is not None
        found.end(index)
        if not found.count:
            del self._live[key]
        return index

    def oldest(self, key: Hashable) -> int | None:
        """The one that has lived for longest, or None."""
        found = self._live.get(key)
        return found.oldest(None) if isinstance(found, _Several) else found and found.request
