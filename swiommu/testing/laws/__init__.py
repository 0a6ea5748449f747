"""The laws that layers, stacks, domains and allocators keep, as checks for anybody's.

A check takes what it is about, and probes where it matters, and raises `AssertionError` with the law's number and what
was seen. `LAWS` lists them; `hold` tries those that a layer alone can keep. Nothing here draws random things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swiommu.layer import Identity, Node, Span, Window
from swiommu.testing.laws.algebra import associativity, identity, pipeline, renaming, window_algebra, zero
from swiommu.testing.laws.blame import Without, attribution, permission, taken_off
from swiommu.testing.laws.conservation import (
    Grant,
    Holdings,
    account_of_frames,
    account_of_region,
    conservation,
)
from swiommu.testing.laws.copies import cache_transparency, flattening, shadow
from swiommu.testing.laws.devices import Accessor, duplication, isolation
from swiommu.testing.laws.maps import monotonicity, order_independence, round_trip, split_merge
from swiommu.testing.laws.reach import cost, dirty, no_leak, references, segments
from swiommu.testing.stacks import chained
from swiommu.testing.statements import STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.layer import Layer
    from swiommu.testing.probes import Probe

__all__ = [
    "LAWS",
    "Accessor",
    "Grant",
    "Holdings",
    "Law",
    "Without",
    "account_of_frames",
    "account_of_region",
    "associativity",
    "attribution",
    "cache_transparency",
    "conservation",
    "cost",
    "dirty",
    "duplication",
    "flattening",
    "hold",
    "identity",
    "isolation",
    "monotonicity",
    "no_leak",
    "order_independence",
    "permission",
    "pipeline",
    "references",
    "renaming",
    "round_trip",
    "segments",
    "shadow",
    "split_merge",
    "taken_off",
    "window_algebra",
    "zero",
]


@attrs.frozen
class Law:
    """One law: its number in the specification, a name, what it says, and the check of it."""

    number: int
    name: str
    statement: str
    check: Callable[..., None]


_CHECKS: dict[int, Callable[..., None]] = {
    1: identity,
    2: zero,
    3: associativity,
    4: pipeline,
    5: flattening,
    6: shadow,
    7: window_algebra,
    8: monotonicity,
    9: permission,
    10: attribution,
    11: no_leak,
    12: isolation,
    13: cache_transparency,
    14: split_merge,
    15: segments,
    16: dirty,
    18: conservation,
    19: order_independence,
    20: cost,
    21: round_trip,
    22: renaming,
    23: duplication,
}

LAWS = {number: Law(number, *STATEMENTS[number], check) for number, check in _CHECKS.items()}
"""Number -> law. 17, bouncing, belongs to the DMA backends and is not among them."""


def hold(layer: Layer, probes: Sequence[Probe]) -> None:
    """Try the laws on a layer of your own: alone, under a window with holes, and over one.

    These are 1 to 4, 9 to 11, 15, 16 and 20; the others need something to change, or domains. Give it to hypothesis
    with `swiommu.testing.strategies.probes`, around the borders that your layer has.

    >>> from hypothesis import given, settings
    >>> from swiommu.address import Prot
    >>> from swiommu.layer import Extent, FaultKind, Layer
    >>> from swiommu.testing import laws, strategies
    >>> class Swap(Layer):
    ...     "Two halves of a space change places."
    ...     kind, granule, input_width, output_width = "swap", 0x1000, 16, 16
    ...     def look(self, at, read):
    ...         return FaultKind.RANGE if at >> 16 else Extent(at & 0x8000, ~at & 0x8000, 0x8000, 0x8000, Prot(3))
    ...     def extents(self):
    ...         yield self.look(0, None)
    ...         yield self.look(0x8000, None)
    >>> @settings(max_examples=20)
    ... @given(strategies.probes(0, 0x10000))
    ... def test_swap(probes):
    ...     laws.hold(Swap("swap"), probes)
    >>> test_swap()
    """
    node = Node(layer)
    half = 1 << layer.output_width - 1
    above = Node(Window("above", Span(0, 1 << layer.input_width)))
    below = Node(Window("below", Span(0, half >> 1), Span(half, half)))
    wide, deep = Node(Identity("wide")), Node(Identity("deep"))
    for chain in ([node], [above, node], [node, below], [above, node, below], [wide, node, deep]):
        identity(chained(chain), probes)
        zero(chained(chain), probes)
        associativity(chain, probes)
        attribution(chain, probes)
        no_leak(chain, probes)
        segments(chained(chain), probes)
        cost(chain, probes)
        dirty(chain, probes)
    for upper, lower in ((node, below), (above, node)):
        pipeline(upper, lower, probes)
        permission(upper, lower, probes)
