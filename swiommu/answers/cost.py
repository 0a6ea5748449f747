"""A cost vector: what a reference, an invalidation or a copy is worth, with the source of every number (rule 23).

    unit = "ns"

    [invalidation]
    price = 1000
    source = "guess"

Counts are facts of a replay; prices are opinions about a machine. So a cost is never printed without its source, and
never decides anything that a factor of four in the prices would turn over.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import attrs

from swiommu.input_file import InputFile, key

__all__ = ["BAND", "PRICED", "CostVector", "Price", "read_cost_vector"]

BAND = 4  # a price may be wrong by this factor, up or down

_GUESS = Path(__file__).parent.parent / "data" / "cost-guess.toml"


@attrs.frozen
class Price:
    """What one of something costs, in the vector's unit, and who says so."""

    price: float = key("What one costs, in the unit of the file.", least=0.0, most=1e18)
    source: str = key("Who says so; `guess` if it is one.", printable=True)


@attrs.frozen
class CostKeys:
    """The keys of a file of prices; what has no price is in no cost."""

    unit: str = key("The unit of all prices.", "ns", printable=True)
    walk_ref: Price | None = key("A page-table entry read by a walk.", None)
    map: Price | None = key("A contiguous piece entered in a page table.", None)
    unmap: Price | None = key("A request taken out of it.", None)
    invalidation: Price | None = key("A command to the invalidation queue, waited for.", None)
    copied_kib: Price | None = key("A KiB copied by the CPU.", None)


PRICED = {field.name: field.metadata["sentence"] for field in attrs.fields(CostKeys) if field.name != "unit"}


@attrs.frozen
class CostVector:
    """Prices by the names of `PRICED`; what has no price is not in a cost.

    >>> vector = CostVector("ns", {"invalidation": Price(1000.0, "guess")})
    >>> vector.cost({"invalidation": 3, "map": 7})
    3000.0
    >>> vector.is_decided({"invalidation": 3}, {"invalidation": 30})
    True
    """

    unit: str
    prices: dict[str, Price]

    def cost(self, counts: dict[str, float], factors: dict[str, float] | None = None) -> float:
        """The sum of counts times prices, each price changed by its factor."""
        factors = factors or {}
        return sum(counts.get(name, 0) * p.price * factors.get(name, 1) for name, p in self.prices.items())

    def prices_any(self, counts: dict[str, float]) -> bool:
        """Whether any of what happened has a price: without one there is no cost, not one of 0.

        >>> CostVector("ns", {"map": Price(5.0, "guess")}).prices_any({"map": 0, "invalidation": 3})
        False
        """
        return any(counts.get(name) for name in self.prices)

    def unpriced(self, counts: dict[str, float]) -> list[str]:
        """What happened and could have a price, but has none."""
        return [name for name in PRICED if counts.get(name) and name not in self.prices]

    def answer(self, counts: dict[str, float]) -> dict[str, Any]:
        """The cost as JSON: value, the band if every price is wrong by a factor of four, the sources, what is left out.

        Only where `prices_any` holds.
        """
        value = self.cost(counts)
        sources = sorted({f"{name}: {p.source}" for name, p in self.prices.items() if counts.get(name)})
        return {
            "value": round(value, 3),
            "band": [round(value / BAND, 3), round(value * BAND, 3)],
            "unit": self.unit,
            "source": "; ".join(sources),
            "unpriced": self.unpriced(counts),
        }

    def is_decided(self, one: dict[str, float], other: dict[str, float]) -> bool:
        """Whether the cheaper of two stays the cheaper whatever combination of prices is wrong by the factor.

        Costs are linear in the prices, so the corners of the band tell.
        """
        names = [name for name in self.prices if one.get(name, 0) != other.get(name, 0)]
        signs = set()
        for corner in product((1 / BAND, BAND), repeat=len(names)):
            factors = dict(zip(names, corner, strict=True))
            difference = self.cost(one, factors) - self.cost(other, factors)
            signs.add((difference > 0) - (difference < 0))
        return len(signs) == 1


def read_cost_vector(path: str) -> CostVector:
    """The vector of a TOML or JSON file, or the bundled one for ``guess``; `InputError` for anything wrong.

    >>> read_cost_vector("guess").prices["invalidation"].source
    'guess'
    """
    file = InputFile.read(str(_GUESS) if path == "guess" else path, what="a cost vector")
    keys = file.structure(CostKeys)
    found = {name: getattr(keys, name) for name in file.data if name in PRICED}
    prices = {name: Price(float(each.price), each.source.strip()) for name, each in found.items() if each is not None}
    if not prices:
        raise file.error((), f"prices nothing; there are {', '.join(PRICED)}")
    return CostVector(keys.unit, prices)
