"""Allocators of a context: the list that they register in, and how one gets to serve a region.

A plug-in of 2010 deals in chunk objects and regions, an allocator of `swiommu.region` in numbers; `Plugged` is the
first in the form of the second, so that `Region` can distrust both alike. Whatever foreign code raises ends here.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right, insort
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cma_compat.structures import cma_allocator
from cma_compat.values import PluginRefusal
from swiommu.address import as_integer, as_integers
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotAnInteger, NotFound, NotSupported, SwiommuError
from swiommu.region import Allocator, FailSwitch, Region, allocator_names, make_allocator

if TYPE_CHECKING:
    from collections.abc import Callable

    from cma_compat.structures import cma_chunk, cma_region
    from swiommu.address import BusAddr, PhysAddr

__all__ = ["ENTRY_POINTS", "Allocators", "Plugged", "attach", "contained", "detach"]

P = ParamSpec("P")
T = TypeVar("T")

ENTRY_POINTS = "cma_compat.allocators"

_log = logging.getLogger("cma_compat")


def contained(what: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The answer of foreign code; what it raises becomes a `SwiommuError` that says ``what`` it was.

    >>> contained("the allocator 'odd'", lambda: 1 // 0)
    Traceback (most recent call last):
    ...
    swiommu.errors.SwiommuError: the allocator 'odd' raised ZeroDivisionError: integer division or modulo by zero
    """
    try:
        return call(*args, **kwargs)
    except SwiommuError:
        raise
    except Exception as fault:  # a plug-in may raise anything, and its region has to go on all the same
        raise SwiommuError(f"{what} raised {type(fault).__name__}: {fault}") from fault


class Allocators:
    """The allocators registered in a context, in order: the first one is the default.

    A name that nobody registered is looked for among the entry points of the group ``cma_compat.allocators`` (an
    object like `cma_allocator`, or a factory as `swiommu.region` knows them), and among the allocators of
    `swiommu.region`; these are found, but never become the default.

    >>> allocators = Allocators()
    >>> allocators.register(cma_allocator("bf", factory=lambda start, size, page_size: None))
    >>> allocators.wanted(None).name, allocators.wanted("bitmap").name, allocators.names()
    ('bf', 'bitmap', ['bf'])
    """

    def __init__(self) -> None:
        self.registered: list[Any] = []
        self._loaded: dict[str, Any] = {}

    def register(self, allocator: Any) -> None:
        """Append one; `InvalidArgument` unless it has ``alloc`` and ``free``, or a ``factory``."""
        operations = [getattr(allocator, name, None) for name in ("alloc", "free")]
        if not all(map(callable, operations)) and not callable(getattr(allocator, "factory", None)):
            raise InvalidArgument(f"{allocator!r} has no alloc or no free operation")
        self.registered.append(allocator)

    def names(self) -> list[str]:
        """The names of those registered, "-" for one that has none."""
        return [name_of(allocator) for allocator in self.registered]

    def wanted(self, name: str | None) -> Any:
        """The allocator of a name, or the default for None; `NotFound` if there is none."""
        if name is None:
            if not self.registered:
                raise NotFound("no allocator is registered")
            return self.registered[0]
        for allocator in self.registered:
            if getattr(allocator, "name", None) == name:
                return allocator
        return self._loaded_or_ours(name)

    def _loaded_or_ours(self, name: str) -> Any:
        if name not in self._loaded:
            found = next(iter(entry_points(group=ENTRY_POINTS, name=name)), None)
            if found is not None:
                self._loaded[name] = _as_allocator(name, contained(f"the entry point {name!r}", found.load))
            elif name in allocator_names():
                self._loaded[name] = cma_allocator(name, factory=partial(make_allocator, name))
            else:
                known = ", ".join([*self.names(), *allocator_names()])
                raise NotFound(f"no allocator is named {name!r}; there are: {known}", name=name)
        return self._loaded[name]


def _as_allocator(name: str, loaded: Any) -> Any:
    """What an entry point gave, as an allocator: a class is made into an object, a bare callable is a factory."""
    made = contained(f"the entry point {name!r}", loaded) if _is_plug_in_class(loaded) else loaded
    if _is_plug_in(made):
        return made
    if callable(made):
        return cma_allocator(name, factory=made)
    raise InvalidArgument(f"the entry point {name!r} is no allocator: {made!r}", name=name)


def _is_plug_in(thing: Any) -> bool:
    both = callable(getattr(thing, "alloc", None)) and callable(getattr(thing, "free", None))
    return (both or callable(getattr(thing, "factory", None))) and not isinstance(thing, type)


def _is_plug_in_class(thing: Any) -> bool:
    # A class with the five members of our own protocol is a factory instead.
    return isinstance(thing, type) and hasattr(thing, "alloc") and not hasattr(thing, "holes")


def name_of(allocator: Any) -> str:
    """The name of an allocator, "-" if it has none."""
    return getattr(allocator, "name", None) or "-"


def attach(reg: cma_region, allocator: Any, start: PhysAddr | BusAddr, page_size: int) -> None:
    """Let ``allocator`` serve a region from ``start``, or raise: then it has none, and `cma_region.used` is set.

    A negative answer of ``init`` is raised as a `SwiommuError` that carries it as ``code``.
    """
    before = reg.alloc, reg.used
    reg.private_data = None
    reg.served_by = None
    reg.alloc = None
    reg.used = True
    try:
        served_by = _served_by(reg, allocator, start, page_size)
    except SwiommuError:
        raise
    except BaseException:  # it was interrupted, and may be tried again
        reg.alloc, reg.used = before
        raise
    reg.served_by, reg.alloc, reg.used = served_by, allocator, False


def _served_by(reg: cma_region, allocator: Any, start: PhysAddr | BusAddr, page_size: int) -> Region[Any]:
    said = f"the allocator {name_of(allocator)!r}"
    factory = getattr(allocator, "factory", None)
    if factory is None:
        init = getattr(allocator, "init", None)
        answer = contained(f"{said} in init", init, reg) if init is not None else 0
        code = 0 if answer is None else _errno(f"{said} answered {answer!r} to init of {reg.start:#x}", answer)
        if code < 0:
            raise PluginRefusal(f"{said} answered {code} to init of {reg.start:#x}", code=-code)
        made: Any = Plugged(reg, allocator, page_size)
    else:
        made = contained(said, factory, reg.start, reg.size, page_size=page_size)
        if not isinstance(made, Allocator):
            raise SwiommuError(f"{said} made {made!r}, which is no allocator")
        reg.private_data = made
    return Region(start, reg.size, allocator=made, name=reg.name)


def _errno(said: str, answer: object) -> int:
    try:
        return as_integer(answer, "the answer")
    except NotAnInteger:
        raise SwiommuError(f"{said}, which is neither 0 nor an errno") from None


def detach(reg: cma_region) -> None:
    """Take the allocator off an empty region: its ``cleanup`` runs, and the next allocation attaches one again."""
    allocator = reg.alloc
    served = reg.served_by is not None
    reg.alloc = None
    reg.served_by = None
    cleanup = getattr(allocator, "cleanup", None)
    try:
        if served and cleanup is not None:
            contained(f"the allocator {name_of(allocator)!r} in cleanup", cleanup, reg)
    except SwiommuError as fault:
        _log.warning("%s", fault)
    finally:
        reg.private_data = None


class Plugged:
    """A plug-in of 2010 at work in one region, in the form that `swiommu.region.Region` asks for.

    What it may not answer (no chunk, another size, outside, over a live chunk) is given back to it and refused.
    `holes` is what no chunk covers, and `fits` asks these: a plug-in may be of another opinion.

    >>> from cma_compat.structures import cma_chunk, cma_region
    >>> low = cma_allocator("low", alloc=lambda reg, size, _: cma_chunk(reg.start, size), free=lambda _: None)
    >>> plugged = Plugged(cma_region(0x4000, 0x4000), low, 4096)
    >>> plugged.alloc(0x1000, 0x1000) == 0x4000, plugged.holes()
    (True, [(20480, 12288)])
    """

    def __init__(self, reg: cma_region, allocator: Any, page_size: int) -> None:
        self.name = name_of(allocator)
        self.start = reg.start
        self.size = reg.size
        self.page_size = page_size
        self.free_space = reg.size
        self._region = reg
        self._allocator = allocator
        self._chunks: dict[int, cma_chunk] = {}
        self._taken: dict[int, int] = {}  # sizes, for a plug-in may write into its chunks
        self._starts: list[int] = []
        self._fail = FailSwitch()

    def alloc(self, size: int, align: int) -> int:
        """See `Allocator.alloc`; `AddressInUse` and `SwiommuError` for an answer that can't be."""
        self._fail.refuse(size)
        chunk = self._operation("alloc", self._region, size, align)
        if chunk is None:
            raise NoMemory(f"the allocator {self.name!r} has no room for {size} bytes aligned to {align}", size=size)
        try:
            start = self._admitted(chunk, size)
        except BaseException as refusal:
            self._hand_back(chunk, refusal)
            raise
        self._chunks[start] = chunk
        self._taken[start] = size
        insort(self._starts, start)
        self.free_space -= size
        return start

    def free(self, start: int, size: int) -> None:
        """See `Allocator.free`; only whole chunks can be given to a plug-in."""
        chunk = self._chunks.get(start)
        if chunk is None or self._taken[start] != size:
            raise NotFound(f"{size} bytes at {start:#x} are not a chunk of the allocator {self.name!r}", start=start)
        self._operation("free", chunk)
        del self._chunks[start], self._taken[start]
        del self._starts[bisect_left(self._starts, start)]
        self.free_space += size

    def reserve(self, start: int, size: int) -> None:
        """`NotSupported`: a plug-in chooses its places itself."""
        raise NotSupported(f"the allocator {self.name!r} can't be told to take {size} bytes at {start:#x}", start=start)

    def fits(self, size: int, align: int) -> bool:
        """Whether one of the `holes` has an aligned place."""
        return any((start + align - 1 & -align) + size <= start + room for start, room in self.holes())

    def holes(self) -> list[tuple[int, int]]:
        """See `Allocator.holes`."""
        found, at = [], self.start
        for start in [*self._starts, self.start + self.size]:
            if at < start:
                found.append((at, start - at))
            at = start + self._taken.get(start, 0)
        return found

    def check(self) -> None:
        """Chunks are apart and add up; `AssertionError` with a dump."""
        dump = f"{self.name!r} {self._taken}"
        assert self._starts == sorted(self._chunks) == sorted(self._taken), dump
        assert sum(size for _, size in self.holes()) == self.free_space == self.size - sum(self._taken.values()), dump

    def fail_nth(self, n: int) -> None:
        """See `Allocator.fail_nth`."""
        self._fail.arm(n)

    def _operation(self, name: str, *args: Any) -> Any:
        return contained(f"the allocator {self.name!r} in {name}", getattr(self._allocator, name), *args)

    def _admitted(self, chunk: cma_chunk, size: int) -> int:
        said = f"the allocator {self.name!r} answered {chunk!r} for {size} bytes"
        try:
            start, taken = as_integers(start=getattr(chunk, "start", None), size=getattr(chunk, "size", None))
        except NotAnInteger:
            taken = 0
        if taken != size:
            raise SwiommuError(f"{said}, which is no chunk of that size", size=size)
        if start < self.start or start + size > self.start + self.size:
            raise SwiommuError(f"{said}, outside the region", start=start, size=size)
        before = bisect_right(self._starts, start + size - 1) - 1
        if before >= 0 and self._starts[before] + self._taken[self._starts[before]] > start:
            raise AddressInUse(f"{said}, over the live chunk at {self._starts[before]:#x}", start=start, size=size)
        contained(f"the chunk of the allocator {self.name!r}", setattr, chunk, "region", self._region)
        return start

    def _hand_back(self, chunk: cma_chunk, refusal: BaseException) -> None:
        try:
            self._operation("free", chunk)
        except SwiommuError as fault:
            _log.warning("%s; after: %s", fault, refusal)
