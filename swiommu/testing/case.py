"""What a case is, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

__all__ = ["Case"]


@attrs.frozen
class Case:
    """Law ``number``, tried on what ``drawn`` says: ``run`` gets one argument for each strategy.

    >>> from hypothesis import strategies as st
    >>> from swiommu.testing import laws
    >>> def try_windows(size):
    ...     laws.window_algebra(0, size, (5, 7), (5, 9))
    >>> Case(7, "windows at 0", (st.integers(1, 99),), try_windows).hold(examples=10)
    """

    number: int
    about: str
    drawn: tuple[SearchStrategy[Any], ...]
    run: Callable[..., None]

    def hold(self, *, examples: int, shrink: bool = True) -> None:
        """Try it; `AssertionError` with the law and what was seen if it is broken, for the smallest example found.

        The same examples are drawn each time. Without ``shrink`` the first one found is told.
        """
        phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
        checks = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=checks,
            report_multiple_bugs=False,
        )
        @given(st.tuples(*self.drawn))
        def held(values: tuple[Any, ...]) -> None:
            self.run(*values)

        held()

    def __str__(self) -> str:
        return f"{self.number}-{self.about}"
