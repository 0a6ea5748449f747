"""The book that pairing writes: requests with what served them, operations in trace order, and who is live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.requests.live import LiveRequests
from swiommu.requests.workload import Occupancy, Op, OpCode, Request, RequestKind, Served, Sync, Unused

if TYPE_CHECKING:
    from collections.abc import Hashable

    from swiommu.requests.machine import Machine
    from swiommu.trace import Event

__all__ = ["Book"]


USER_SPACE = "user space"  # who maps for itself has a domain of its own (IOMMU_DOMAIN_UNMANAGED)


class Book:
    """Requests, operations and occupancies, as they come to light while the events go by.

    A place in ``ops`` can be taken before it is known what happens there: `hold` it, and `patch` it later.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.requests: list[Request] = []
        self.served: list[Served] = []
        self.ops: list[Op] = []
        self.occupancies: list[Occupancy] = []
        self.syncs: list[Sync] = []
        self.unused = Unused()
        self._live = LiveRequests()

    def add(
        self,
        kind: RequestKind,
        *,
        device: str,
        time: int,
        line: int,
        size: int,
        served: Served,
        translated: bool = False,
        censored: bool = False,
        gfp: str = "",
        direction: str = "",
        pieces: tuple[tuple[int, int], ...] = (),
        iova: int | None = None,
    ) -> int:
        """Note one request and return its index; ``translated`` is what the trace shows of this very call."""
        facts = self.machine.device(device, translated=translated, line=line)
        index = len(self.requests)
        self.requests.append(
            Request(
                index=index,
                kind=kind,
                device=device,
                group=USER_SPACE if kind is RequestKind.USERMAP else facts.group,
                size=size,
                time=time,
                line=line,
                mask=facts.coherent_mask if kind is RequestKind.ALLOC else facts.mask,
                translated=translated or facts.translated,
                censored=censored,
                gfp=gfp,
                direction=direction,
                pieces=pieces,
                iova=iova,
                is_iommu=facts.is_iommu,
                is_pci=facts.is_pci,
                min_align_mask=facts.min_align_mask,
            )
        )
        self.served.append(served)
        return index

    # -- operations -------------------------------------------------------------------------------------------------

    def op(self, code: OpCode, index: int, time: int) -> int:
        """Append an operation and return its place."""
        self.ops.append((code, index, time))
        return len(self.ops) - 1

    def hold(self, time: int) -> int:
        """Take a place for something that will be known later."""
        return self.op(OpCode.NOTHING, -1, time)

    def patch(self, place: int, code: OpCode, index: int) -> None:
        """Say what happened at a held place."""
        self.ops[place] = (code, index, self.ops[place][2])

    # -- who is live ------------------------------------------------------------------------------------------------

    def enter(self, key: Hashable, index: int, time: int) -> None:
        """A request begins; a censored one has no end, so it is never entered as live."""
        self.op(OpCode.BEGIN, index, time)
        request = self.requests[index]
        if not request.censored:
            self._live.enter(key, index, direction=request.direction, size=request.size)

    def leave(self, key: Hashable, event: Event) -> int | None:
        """The request that ends here, by `LiveRequests.leave`, or None, counted as unmatched."""
        index = self._live.leave(key, direction=event.name, size=event.size)
        if index is None:
            self.unused.unmatched += 1
        else:
            self.op(OpCode.END, index, event.time)
        return index

    def oldest(self, key: Hashable) -> int | None:
        """The request that has been live under ``key`` for longest, or None."""
        return self._live.oldest(key)
