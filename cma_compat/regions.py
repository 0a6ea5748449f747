"""Regions, allocators and the map of a context: what is set up before drivers ask for memory."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from cma_compat.allocators import Allocators, attach, detach
from cma_compat.backends import DomainBackend, MemoryBackend
from cma_compat.device_map import validate
from cma_compat.early import EarlyRegions
from cma_compat.index import Index
from cma_compat.structures import cma_allocator
from swiommu.address import BusSpace, PhysSpace, as_integers
from swiommu.errors import AddressInUse, Busy, InvalidArgument, SwiommuError
from swiommu.locking import no_shallow_copy
from swiommu.region import BestFit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from cma_compat.structures import Backend, cma_region
    from swiommu.address import Space
    from swiommu.memory import Bootmem, Memblock

__all__ = ["Mutex", "Regions"]

_log = logging.getLogger("cma_compat")


class Regions:
    """The half of `ContiguousMemory` that platform code and allocators see; the arguments are told there.

    >>> from cma_compat import cma_region
    >>> cma = Regions()
    >>> cma.register_region(cma_region(0x4000_0000, 1 << 20, name="pool"))
    >>> cma.register_region(cma_region(0x400f_f000, 1 << 20))
    Traceback (most recent call last):
    ...
    swiommu.errors.AddressInUse: a region of 0x100000 bytes at 0x400ff000 overlaps the one at 0x40000000
    """

    __copy__ = no_shallow_copy

    def __init__(
        self,
        *,
        width: int = 64,
        page_size: int = 4096,
        memory: PhysSpace | None = None,
        allocators: Iterable[Any] | None = None,
        bootmem: Bootmem | None = None,
        memblock: Memblock | None = None,
        type_wildcards: bool = False,
    ) -> None:
        width, page_size = as_integers(width=width, page_size=page_size)
        self.space = BusSpace("cma", width=width)
        self.memory = PhysSpace("memory", width=width) if memory is None else memory
        if self.memory.width > width:
            raise InvalidArgument(f"bus addresses of {width} bits for a memory of {self.memory.width}")
        self.page_size = page_size
        self._mutex = Mutex()
        self._allocators = Allocators()
        for allocator in (cma_allocator("bf", factory=BestFit),) if allocators is None else allocators:
            self._allocators.register(allocator)
        self._early = EarlyRegions(self.memory, page_size, bootmem=bootmem, memblock=memblock)
        self._type_wildcards = type_wildcards
        self._map = ""
        self._regions: list[cma_region] = []
        self._backends: dict[Any, Backend] = {self.memory: MemoryBackend(self.memory, self.space)}
        self._index = Index()

    # -- what there is

    @property
    def regions(self) -> tuple[cma_region, ...]:
        """The registered regions in the order of lookup: named ones, the latest first, then private ones."""
        return tuple(self._regions)

    @property
    def early_regions(self) -> tuple[cma_region, ...]:
        """The regions registered early and not handed over by `init` yet, for platform code to walk."""
        return tuple(self._early.regions)

    @property
    def allocators(self) -> tuple[Any, ...]:
        """The registered allocators, in order; the first one is the default."""
        return tuple(self._allocators.registered)

    @property
    def map(self) -> str:
        """The map in force; "" is none."""
        return self._map

    # -- configuration

    def set_map(self, text: str) -> None:
        """Replace the map; `InvalidArgument` leaves the one in force. Kept up to its accepted length."""
        length = validate(text)
        with self._mutex:
            self._map = text[:length]

    def set_defaults(self, regions: Sequence[cma_region] | None, map_: str | None) -> None:
        """The platform's say, before reserving: a map that replaces, early regions that add, up to one of size 0.

        A bad map is refused before any region is looked at; the first bad region ends it, those before it stay.
        """
        if map_ is not None:
            self.set_map(map_)
        for reg in regions or ():
            if not reg.size:
                break
            self._early.register(reg)

    def register_allocator(self, allocator: Any) -> None:
        """Append an allocator, and attach it where it was waited for; `InvalidArgument` without alloc or free.

        It was waited for by regions that name it, and, if it is the first of all, by those that name none. What
        attaching answers is ignored.
        """
        with self._mutex:
            self._allocators.register(allocator)
            first = len(self._allocators.registered) == 1
            name = getattr(allocator, "name", None)
            for reg in self._regions:
                if reg.served_by is None and (first if reg.alloc_name is None else reg.alloc_name == name):
                    self._try_to_attach(reg, lambda: allocator)

    # -- early regions, see `EarlyRegions`

    def register_early(self, reg: cma_region) -> None:
        """Ask for a region before there is an allocator; `InvalidArgument` for a bad alignment or extent."""
        self._early.register(reg)

    def reserve_early(self, reg: cma_region) -> None:
        """Take memory for one early region by the platform's own means."""
        self._early.reserve(reg)

    def reserve_all_early(self, reserve: Callable[[cma_region], Any] | None = None) -> None:
        """Take memory for all that have none, by ``reserve`` if it is given; failures are logged."""
        self._early.reserve_all(reserve)

    def init(self) -> None:
        """Register the reserved early regions, once, before drivers; the others are dropped."""
        self._early.hand_over(self.register_region)

    # -- regions

    def register_region(self, reg: cma_region | None) -> None:
        """Make a region usable. An allocator preset in ``alloc`` is attached now, others by the first allocation.

        `InvalidArgument` (nothing given, size 0, start + size leaves the space), `AddressInUse` (overlap), or what
        attaching raised. A region that is registered already overlaps itself and stays as it is.
        """
        if reg is None:
            raise InvalidArgument("no region to register")
        backend = self._backend(reg)
        space: Any = backend.space
        if reg.size < 1 or reg.start < 0 or reg.start + reg.size >= space.limit:
            raise InvalidArgument(f"a region of {reg.size:#x} bytes at {reg.start:#x} can't be", start=reg.start)
        with self._mutex:
            if not reg.registered:
                reg.used, reg.served_by, reg.private_data = False, None, None
            self._require_apart(reg, space)
            backend.admit(reg.start, reg.size, self.page_size)
            if reg.alloc is not None:
                try:
                    attach(reg, reg.alloc, space.at(reg.start), self.page_size)
                except BaseException:
                    backend.dismiss(reg.start, reg.size)
                    raise
            reg.backend, reg.registered = backend, True
            self._regions.insert(len(self._regions) if reg.name is None else 0, reg)

    def unregister_region(self, reg: cma_region | None) -> None:
        """Take a region away: `Busy` while chunks are alive in it, `InvalidArgument` if it is not registered here."""
        with self._mutex:
            if reg is None or not self._holds(reg):
                raise InvalidArgument("the region is not registered here")
            if reg.users:
                raise Busy(f"{reg.users} chunks are alive in the region at {reg.start:#x}")
            self._backend(reg).dismiss(reg.start, reg.size)
            self._regions.remove(reg)
            reg.backend, reg.registered = None, False
            detach(reg)

    def choose_allocator(self, reg: cma_region, name: str | None) -> None:
        """Let another allocator serve an empty region, from the next allocation on; None is the default.

        `Busy` while chunks are alive in it, `InvalidArgument` if it is not registered here.
        """
        with self._mutex:
            if not self._holds(reg):
                raise InvalidArgument("the region is not registered here")
            if reg.users:
                raise Busy(f"{reg.users} chunks are alive in the region at {reg.start:#x}")
            reg.alloc_name, reg.used = name, False
            detach(reg)

    # -- under the mutex

    def _backend(self, reg: cma_region) -> Backend:
        where: Any = self.memory if reg.within is None else reg.within
        if hasattr(where, "withdraw"):
            backend: Backend = where
            return backend
        if where not in self._backends:
            self._backends[where] = (
                MemoryBackend(where, BusSpace(where.name, width=self.space.width))
                if isinstance(where, PhysSpace)
                else DomainBackend(where)
            )
        return self._backends[where]

    def _require_apart(self, reg: cma_region, space: Space) -> None:
        for other in self._regions:
            overlap = reg.start < other.start + other.size and other.start < reg.start + reg.size
            if overlap and self._backend(other).space is space:
                raise AddressInUse(
                    f"a region of {reg.size:#x} bytes at {reg.start:#x} overlaps the one at {other.start:#x}",
                    start=reg.start,
                    size=reg.size,
                )

    def _holds(self, reg: cma_region) -> bool:
        # Identity, as regions compare by it; `registered` alone would also accept another context's.
        return reg.registered and reg in self._regions

    def _try_to_attach(self, reg: cma_region, find: Callable[[], Any]) -> None:
        start: Any = self._backend(reg).space
        try:
            attach(reg, find(), start.at(reg.start), self.page_size)
        except SwiommuError as refusal:
            _log.warning("region %#x has no allocator: %s", reg.start, refusal)
            reg.used = True


class Mutex:
    """A lock that tells a thread that would wait for itself, instead of letting it wait: allocators may not call back.

    >>> mutex = Mutex()
    >>> with mutex, mutex:
    ...     pass
    Traceback (most recent call last):
    ...
    swiommu.errors.Busy: this thread is in a call of the context already: an allocator may not call back into it
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    def __reduce__(self) -> tuple[type[Mutex], tuple[()]]:
        return Mutex, ()  # a pickle or a copy has one of its own, which nobody holds

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner == me:  # only this thread can have written its own number here
            raise Busy("this thread is in a call of the context already: an allocator may not call back into it")
        self._lock.acquire()
        self._owner = me

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner = 0
        self._lock.release()
