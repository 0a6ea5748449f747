"""A script of requests: what begins and ends when, written by generators and read by a replay."""

from __future__ import annotations

import random

from swiommu.address import PAGE_SIZE, PhysSpace
from swiommu.memory import SystemMap
from swiommu.profile import DEFAULT_PROFILE
from swiommu.requests.workload import GENERATED, Op, OpCode, Request, RequestKind, Served, Workload

__all__ = ["MASK_32", "MASK_64", "SECOND", "Script"]

MASK_32 = (1 << 32) - 1
MASK_64 = (1 << 64) - 1
SECOND = 1_000_000_000

_RAM = (0x4000_0000, 0xBFFF_FFFF)


class Script:
    """Begins and ends of one machine's run, 2 GiB of RAM; times in ns.

    ``random`` is the script's own generator, seeded by name and seed, so that parts of a mix do not disturb each other
    from one version to the next less than they must.

    >>> script = Script("demo", 0)
    >>> script.alloc("camera", 8192, begin=5, end=9)
    >>> [(code.name, time) for code, _, time in script.workload().ops]
    [('BEGIN', 5), ('END', 9)]
    """

    def __init__(self, name: str, seed: int, *, duration: int = 60 * SECOND) -> None:
        self.name = name
        self.seed = seed
        self.duration = duration
        self.random = random.Random(f"{name}:{seed}")  # noqa: S311 - reproducible, not secret
        self._requests: list[Request] = []
        self._moments: list[tuple[int, int, OpCode, int]] = []

    def alloc(self, device: str, size: int, *, begin: int, end: int, mask: int = MASK_32) -> None:
        """Coherent memory of ``size`` bytes for ``device`` from ``begin`` to ``end``."""
        self._note(RequestKind.ALLOC, device, size, begin, end, mask, (), "BIDIRECTIONAL")

    def map(
        self,
        device: str,
        pieces: tuple[tuple[int, int], ...],
        *,
        begin: int,
        end: int,
        direction: str,
        mask: int = MASK_64,
    ) -> None:
        """Memory that exists, mapped for ``device``: (physical address, bytes) pieces."""
        self._note(RequestKind.MAP, device, sum(size for _, size in pieces), begin, end, mask, pieces, direction)

    def pages(self, size: int, *, longest: int = 1) -> tuple[tuple[int, int], ...]:
        """``size`` bytes of page cache: runs of up to ``longest`` neighbouring pages, anywhere in RAM."""
        pieces = []
        while size > 0:
            run = min(size, self.random.randint(1, longest) * PAGE_SIZE)
            pieces.append((self.anywhere(longest), run))
            size -= run
        return tuple(pieces)

    def anywhere(self, pages: int = 1) -> int:
        """The address of a page in RAM with ``pages`` pages behind it."""
        first, last = _RAM
        return self.random.randrange(first, last + 1 - pages * PAGE_SIZE, PAGE_SIZE)

    def pause(self, mean: float) -> int:
        """A Poisson process's time to the next arrival, ns; ``mean`` in seconds."""
        return round(self.random.expovariate(1 / mean) * SECOND)

    def workload(self) -> Workload:
        """The script in order of time; what begins first in the script comes first among equals."""
        ordered = sorted(self._moments)
        ops: list[Op] = [(code, index, time) for time, _, code, index in ordered]
        space = PhysSpace("generated machine")
        return Workload(
            name=f"workload {self.name}, seed {self.seed}",
            requests=self._requests,
            served=[Served() for _ in self._requests],
            ops=ops,
            occupancies=[],
            area=None,
            system_map=SystemMap.from_lines(space, [f"{_RAM[0]:08x}-{_RAM[1]:08x} : System RAM"]),
            profile=DEFAULT_PROFILE,
            page_size=PAGE_SIZE,
            mode=GENERATED,
            start_time=0,
            stop_time=max((time for _, _, time in ops), default=0),
            has_dma_events=True,
        )

    def _note(
        self,
        kind: RequestKind,
        device: str,
        size: int,
        begin: int,
        end: int,
        mask: int,
        pieces: tuple[tuple[int, int], ...],
        direction: str,
    ) -> None:
        index = len(self._requests)
        self._requests.append(
            Request(
                index=index,
                kind=kind,
                device=device,
                group=f"device {device}",
                size=size,
                time=begin,
                line=0,
                mask=mask,
                translated=False,
                censored=False,
                gfp="GFP_KERNEL",
                direction=direction,
                pieces=pieces,
            )
        )
        self._moments.append((begin, len(self._moments), OpCode.BEGIN, index))
        if end <= self.duration:  # what would end later lives when the script stops
            self._moments.append((max(end, begin + 1), len(self._moments), OpCode.END, index))
