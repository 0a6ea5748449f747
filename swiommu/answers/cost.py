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

from swiommu.errors import InputError
from swiommu.toml_file import did_you_mean, read_toml

__all__ = ["BAND", "PRICED", "CostVector", "Price", "read_cost_vector"]

BAND = 4  # a price may be wrong by this factor, up or down

PRICED = {
    "walk_ref": "a page-table entry read by a walk",
    "map": "a contiguous piece entered in a page table",
    "unmap": "a request taken out of it",
    "invalidation": "a command to the invalidation queue, waited for",
    "copied_kib": "a KiB copied by the CPU",
}
_GUESS = Path(__file__).parent.parent / "data" / "cost-guess.toml"


@attrs.frozen
class Price:
    """What one of something costs, in the vector's unit, and who says so."""

    price: float
    source: str


@attrs.frozen
class CostVector:
    """Prices by the names of `PRICED`; what is not priced costs nothing.

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

    def answer(self, counts: dict[str, float]) -> dict[str, Any]:
        """The cost as JSON: value, the band if every price is wrong by a factor of four, and the sources."""
        value = self.cost(counts)
        sources = sorted({f"{name}: {p.source}" for name, p in self.prices.items() if counts.get(name)})
        return {
            "value": round(value, 3),
            "band": [round(value / BAND, 3), round(value * BAND, 3)],
            "unit": self.unit,
            "source": "; ".join(sources) or "nothing that is priced happened",
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
    """The vector of a TOML file, or the bundled one for ``guess``; `InputError` in one sentence for anything wrong.

    >>> read_cost_vector("guess").prices["invalidation"].source
    'guess'
    """
    tables = read_toml(str(_GUESS) if path == "guess" else path, what="a cost vector")
    unit = tables.pop("unit", "ns")
    if not isinstance(unit, str) or not unit.isprintable():
        raise InputError("unit is not a text", path=path)
    prices = {}
    for name, table in tables.items():
        if name not in PRICED:
            raise InputError(f"nothing named {name!r} has a price; {did_you_mean(name, PRICED)}", path=path)
        prices[name] = _price(name, table, path)
    if not prices:
        raise InputError(f"prices nothing; there are {', '.join(PRICED)}", path=path)
    return CostVector(unit, prices)


def _price(name: str, table: object, path: str) -> Price:
    if not isinstance(table, dict) or not isinstance(table.get("source"), str) or not table["source"].strip():
        raise InputError(f'[{name}] names no source; write "guess" if it is one', path=path)
    price = table.get("price")
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < 1e18:
        raise InputError(f"[{name}] has no price, a number from 0 on", path=path)
    unknown = set(table) - {"price", "source"}
    if unknown:
        raise InputError(f"[{name}] has no {min(unknown)!r}: only price and source", path=path)
    return Price(float(price), table["source"].strip())
