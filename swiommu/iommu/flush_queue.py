"""Deferred invalidation: what an unmap gives up waits in a ring until the whole IOTLB was flushed (``struct iova_fq``).

One flush for hundreds of unmaps is cheap; in exchange, until it comes, a device may still reach through a stale entry
of its IOTLB what was unmapped.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

import attrs

from swiommu.address import as_integers
from swiommu.errors import InvalidArgument
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT_HZ", "Exposure", "FlushQueue"]

DEFAULT_HZ: Final = 250
"""Ticks a second (CONFIG_HZ) of most kernels that distributions build."""

_SECOND: Final = 1_000_000_000  # ns

T = TypeVar("T")


class FlushQueue(Generic[T]):
    """A ring of 256 entries, 255 usable, for each of ``cpus`` CPUs, and one timer of 10 ms for all.

    ``flush(now)`` must invalidate everything. ``free(item, cpu)`` is called for an item when a flush has begun after it
    was queued and is over; ``cpu`` is the one that does it. An item that it raises for stays in its ring. Time comes
    from outside, in ns; tick 0 is at 0.

    The timer counts ticks of 1/``hz`` s, rounded up, and one more, as the tick that runs has begun: with 250 Hz it
    fires 12 to 16 ms after the item that started it. A flush because a ring is full does not stop it. Raises
    `InvalidArgument` without a CPU or a tick. Source: ``queue_iova``, ``fq_flush_timeout`` in
    drivers/iommu/dma-iommu.c, ``msecs_to_jiffies`` and ``calc_index`` in kernel/time.

    >>> queue = FlushQueue(lambda now: print("flush at", now), lambda item, cpu: print("free", item), hz=250)
    >>> queue.queue("page", now=5_000_000)
    >>> queue.advance(19_999_999)
    >>> queue.advance(30_000_000)
    flush at 20000000
    free page
    """

    SIZE: ClassVar[int] = 256  # IOVA_DEFAULT_FQ_SIZE
    TIMEOUT_NS: ClassVar[int] = 10_000_000  # IOVA_DEFAULT_FQ_TIMEOUT

    __copy__ = no_shallow_copy

    def __init__(
        self, flush: Callable[[int], None], free: Callable[[T, int], None], *, cpus: int = 1, hz: int = DEFAULT_HZ
    ) -> None:
        cpus, hz = as_integers(cpus=cpus, hz=hz)
        if cpus < 1:
            raise InvalidArgument(f"a flush queue for {cpus} CPUs: at least 1 is needed")
        if hz < 1:
            raise InvalidArgument(f"a flush queue with {hz} ticks a second: at least 1 is needed")
        self.full_flushes = 0
        self.timer_flushes = 0
        self.expires: int | None = None
        self._flush = flush
        self._free = free
        self._flushes = 0  # fq_flush_start_cnt and fq_flush_finish_cnt: a flush here is over when it returns
        self._rings: list[deque[tuple[int, T]]] = [deque() for _ in range(cpus)]
        self._timer_cpu = 0
        self._hz = hz

    def __len__(self) -> int:
        return sum(map(len, self._rings))

    def queue(self, item: T, now: int, *, cpu: int = 0) -> None:
        """Put ``item`` into the ring of ``cpu``: first what was flushed goes, then everything is flushed if it is full.

        `InvalidArgument` for a CPU that does not exist. What ``free`` raises for another item comes out, with this one
        in the ring and that one still there.
        """
        if not 0 <= cpu < len(self._rings):
            raise InvalidArgument(f"no CPU {cpu}: there are {len(self._rings)}")
        ring = self._rings[cpu]
        try:
            self._drain(ring, cpu)
            if len(ring) >= self.SIZE - 1:
                self.full_flushes += 1
                self._flush_all(now)
                self._drain(ring, cpu)
        finally:
            ring.append((self._flushes, item))
            if self.expires is None:
                self.expires = self._due(now)
                self._timer_cpu = cpu

    def _due(self, now: int) -> int:
        """When a timer that is started at ``now`` fires: at the beginning of a tick."""
        ticks = now * self._hz // _SECOND + -(-self.TIMEOUT_NS * self._hz // _SECOND) + 1
        return -(-ticks * _SECOND // self._hz)

    def advance(self, now: int) -> None:
        """Let the timer fire if it is due at ``now``; it then flushes at the moment it was due."""
        if self.expires is not None and self.expires <= now:
            self.fire(self.expires, cpu=self._timer_cpu)

    def fire(self, now: int, *, cpu: int = 0) -> None:
        """What the timer does, on ``cpu``: flush everything, empty the rings of all CPUs."""
        self.expires = None
        self.timer_flushes += 1
        self._flush_all(now)
        try:
            for ring in self._rings:
                self._drain(ring, cpu)
        finally:
            if len(self):  # something was not taken back: the timer has to come again
                self.expires = self._due(now)

    def _flush_all(self, now: int) -> None:
        self._flush(now)
        self._flushes += 1

    def _drain(self, ring: deque[tuple[int, T]], cpu: int) -> None:
        while ring and ring[0][0] < self._flushes:
            self._free(ring[0][1], cpu)
            ring.popleft()

    def check(self) -> None:
        """No ring is over-full, entries stand in the order of flushes, the timer runs; or `AssertionError`."""
        for ring in self._rings:
            counts = [count for count, _ in ring]
            waiting = sum(count == self._flushes for count in counts)
            assert waiting < self.SIZE, f"{waiting} entries wait for a flush in a ring of {self.SIZE}"
            assert counts == sorted(counts), f"out of order: {counts}"
            assert all(count <= self._flushes for count in counts), f"{counts} after {self._flushes} flushes"
            assert not counts or self.expires is not None, f"{len(counts)} entries wait and no timer runs"


@attrs.define
class Exposure:
    """How long, at most, unmapped memory stayed within reach through stale entries of the IOTLB.

    From an unmap to its flush: ``ns`` of time, ``ops`` operations of the domain in between, ``bytes`` in reach at one
    moment, in whole granules. What has not been flushed yet counts as far as it has come.

    >>> exposure = Exposure()
    >>> exposure.unmapped(100, 4096); exposure.operation(); exposure.unmapped(150, 8192); exposure.flushed(180)
    >>> exposure.ns, exposure.ops, exposure.bytes
    (80, 1, 12288)
    """

    ns: int = 0
    ops: int = 0
    bytes: int = 0
    _since: int | None = attrs.field(default=None, init=False)
    _ops: int = attrs.field(default=0, init=False)
    _bytes: int = attrs.field(default=0, init=False)

    def operation(self) -> None:
        """A map or an unmap begins."""
        if self._since is not None:
            self._ops += 1
            self.ops = max(self.ops, self._ops)

    def unmapped(self, now: int, size: int) -> None:
        """So many bytes can be reached through stale entries only, from now on."""
        if self._since is None:
            self._since = now
        self._bytes += size
        self.bytes = max(self.bytes, self._bytes)

    def passed(self, now: int) -> None:
        """Time has passed."""
        if self._since is not None:
            self.ns = max(self.ns, now - self._since)

    def flushed(self, now: int) -> None:
        """Nothing stale is left."""
        self.passed(now)
        self._since, self._ops, self._bytes = None, 0, 0
