"""Where nothing is ever mapped: every bus address leads to itself, or none leads anywhere."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar, NoReturn

from swiommu.errors import InvalidArgument, NotSupported
from swiommu.iommu.mapper import DomainStats
from swiommu.pagetable.rules import SWIOMMU

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from swiommu.iommu.gather import IotlbGather
    from swiommu.iommu.mapper import Place, Runs
    from swiommu.layer import Layer
    from swiommu.pagetable import Rules

__all__ = ["FixedMapper"]


class FixedMapper:
    """A `Mapper` without a table; ``word`` is what its domain is called in errors.

    Addresses below ``reach`` lead to themselves. Nothing can be allocated or bound (`NotSupported`) or mapped
    (`InvalidArgument`), and an unmap finds nothing.
    """

    unit: ClassVar[int] = 1
    pgsize_bitmap: ClassVar[int] = 1  # any byte can be reached, or none; a domain has to have some page size
    rules: ClassVar[Rules] = SWIOMMU
    owes: ClassVar[bool] = False
    place: Place

    def __init__(self, word: str, layer: Layer, *, enforces: bool, reach: int) -> None:
        self.word = word
        self.layer = layer
        self.enforces = enforces
        self.stats = DomainStats()
        self._reach = reach

    def choose(self, runs: Runs, size: int, align: int, bits: int, highest: int, at: int | None = None) -> NoReturn:
        """See `Mapper.choose`."""
        del size, align, bits, highest, at
        raise NotSupported(f"[{runs[0][0]:#x}, {runs[0][1]:#x}) can't be bound in {self.word} domain")

    def map(self, iova: int, paddr: int, size: int, bits: int, *, owned: bool) -> NoReturn:
        """See `Mapper.map`."""
        del bits, owned
        raise InvalidArgument(
            f"{size:#x} bytes at {iova:#x} can't be mapped to {paddr:#x}: {self.word} domain takes no mappings",
            iova=iova,
            size=size,
        )

    def before_unmap(self, iova: int, size: int, *, only_ask: bool = False) -> None:
        """See `Mapper.before_unmap`: nothing goes."""

    def unmap(self, iova: int, size: int, gather: IotlbGather | None = None, *, owned: bool = False) -> int:
        """See `Mapper.unmap`: 0."""
        del iova, size, gather, owned
        return 0

    def lookup(self, iova: int) -> tuple[int, int, int, int] | None:
        """See `Mapper.lookup`."""
        return (iova, 1, 0, self._reach) if iova < self._reach else None

    def leading_to(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """See `Mapper.leading_to`."""
        if start < min(stop, self._reach):
            yield start, min(stop, self._reach)

    def reserve(self, first: int, last: int, *, direct: bool, dry: bool) -> None:
        """See `Mapper.reserve`: it gives out no addresses that could be withheld."""

    def dry_run(self) -> AbstractContextManager[None]:
        """See `Mapper.dry_run`."""
        return nullcontext()

    def settle(self) -> None:
        """See `Mapper.settle`."""

    def close(self) -> None:
        """See `Mapper.close`."""

    def check(self, mappings: Iterable[object]) -> None:
        """See `Mapper.check`."""
        assert not list(mappings), f"mappings in {self.word} domain: {mappings}"
