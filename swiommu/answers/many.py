"""Several recordings in one call: each compared by itself, then what holds over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swiommu.replay import AS_RECORDED
from swiommu.words import counted, mib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.answers.compare import Comparison

__all__ = ["Comparisons"]


@attrs.frozen
class Comparisons:
    """The answers for several sources, in the order asked; never empty.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> one = compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["cma-bitmap"])
    >>> Comparisons([one, one]).verdict
    'Over 2 sources: cma-bitmap needs up to 82 MiB.'
    """

    each: Sequence[Comparison]

    @property
    def verdict(self) -> str:
        """For every design the largest need over all sources, its pool beside it, and where no memory is enough.

        Where no needs were looked for, what it lost.
        """
        if not all(answer.with_need for answer in self.each):
            return self._lost()
        parts = []
        for name in self._names():
            rows = [row for answer in self.each for row in answer.rows if row.name == name]
            needs = [row.bytes_needed for row in rows if row.bytes_needed is not None]
            helpless = sum(row.bytes_needed is None and row.lost > 0 for row in rows)
            pool = max(row.pool_bytes for row in rows)
            beside = f" beside a bounce pool of {mib(pool)}" if pool else ""
            words = [f"needs up to {mib(max(needs))}{beside}"] if needs else []
            if helpless:
                words.append(f"loses requests at any size in {counted(helpless, 'source')}")
            if words:
                parts.append(f"{name} {' and '.join(words)}")
        return f"{self._over()}: {'; '.join(parts) or 'no design needs memory for data'}."

    def to_json(self) -> dict[str, Any]:
        """The document ``swiommu.comparisons/1``: a ``swiommu.compare/1`` for each source under ``comparisons``."""
        return {
            "schema": "swiommu.comparisons/1",
            "comparisons": [answer.to_json() for answer in self.each],
            "verdict": self.verdict,
        }

    def _lost(self) -> str:
        lost = dict.fromkeys(self._names(), 0)
        for answer in self.each:
            for row in answer.rows:
                if row.name in lost:
                    lost[row.name] += row.lost
        parts = [f"{name} loses {counted(number, 'request')}" for name, number in lost.items() if number]
        return f"{self._over()}: {', '.join(parts) or 'no design loses anything'}."

    def _over(self) -> str:
        return f"Over {len(self.each)} sources"

    def _names(self) -> list[str]:
        names = dict.fromkeys(row.name for answer in self.each for row in answer.rows)
        return [name for name in names if name != AS_RECORDED]
