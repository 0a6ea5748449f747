"""Prices: what is read, what is refused, and when a cost decides nothing."""

import itertools
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.answers import compare, read_cost_vector
from swiommu.answers.cost import BAND, PRICED, CostVector, Price
from swiommu.answers.verdict import priced
from swiommu.errors import InputError
from swiommu.trace import read_trace

COUNTS = st.dictionaries(st.sampled_from(list(PRICED)), st.integers(0, 10**6))
PRICES = st.dictionaries(st.sampled_from(list(PRICED)), st.integers(0, 1000), min_size=1)


def vector(prices):
    return CostVector("ns", {name: Price(float(price), "guess") for name, price in prices.items()})


@given(COUNTS, PRICES)
def test_cost_is_the_sum(counts, prices):
    assert vector(prices).cost(counts) == sum(counts.get(name, 0) * price for name, price in prices.items())


@given(COUNTS, COUNTS, PRICES)
def test_decided_means_that_no_corner_of_the_band_turns_it_over(one, other, prices):
    def sign(factors):
        total = sum(
            price * factor * (one.get(name, 0) - other.get(name, 0))
            for (name, price), factor in zip(prices.items(), factors, strict=True)
        )
        return (total > 0) - (total < 0)

    corners = itertools.product((1 / BAND, BAND), repeat=len(prices))
    assert vector(prices).is_decided(one, other) == (len({sign(corner) for corner in corners}) == 1)


def test_the_answer_names_its_sources_and_its_band():
    prices = CostVector("ns", {"invalidation": Price(1000.0, "our board"), "map": Price(5.0, "guess")})
    assert prices.answer({"invalidation": 3, "map": 0}) == {
        "value": 3000.0,
        "band": [750.0, 12000.0],
        "unit": "ns",
        "source": "invalidation: our board",
        "unpriced": [],
    }
    assert prices.answer({"map": 2, "unmap": 3, "walk_ref": 1})["unpriced"] == ["walk_ref", "unmap"]


def test_every_row_with_prices_has_a_cost_and_no_reason_for_lacking_one(data_dir):
    path = data_dir / "traces" / "x86-6.12-strict-qtrace-s101.trace.gz"
    answer = compare(read_trace(path), with_need=False, cost=read_cost_vector("guess"))
    document = json.loads(json.dumps(answer.to_json()))
    recorded, *designs = document["designs"]
    assert recorded["cost"] is None
    assert recorded["why"]["cost"] == "not all that has a price is counted in a trace"
    free = [row["name"] for row in designs if row["cost"] is None]
    # Neither bounced nor translated: that was 0 ns once, as if an allocation cost nothing.
    assert free == ["passthrough", "swiotlb-natural", "carveout-best-fit", "cma-bitmap", "software-iommu"]
    for row in designs:
        if row["name"] in free:
            assert row["why"]["cost"] == (
                "nothing of what it does has a price: there are prices of walk_ref, map, unmap, invalidation, "
                "copied_kib only"
            )
            continue
        assert set(row["cost"]) == {"value", "band", "unit", "source", "unpriced"}
        assert row["cost"]["band"][0] <= row["cost"]["value"] <= row["cost"]["band"][1]
        assert "cost" not in row["why"]
    strict = next(row for row in designs if row["name"] == "iommu-strict")
    counts = (25 * strict["walk_refs"], 200 * strict["maps"], 200 * strict["unmaps"], 1000 * strict["invalidations"])
    assert strict["cost"]["value"] == sum(counts)
    assert "(sources: guess)" in document["verdict"]


def row(name, **counts):
    return SimpleNamespace(name=name, same_as=None, priced=lambda: counts)


def test_what_a_wrong_price_turns_over_is_undecided():
    prices = vector({"invalidation": 1000, "copied_kib": 100})
    rows = [row("swiotlb", copied_kib=500), row("iommu-strict", invalidation=40)]
    assert priced(rows, prices) == [
        "at the given prices (sources: guess) iommu-strict costs 40,000 ns and swiotlb costs 50,000 ns",
        "the order of iommu-strict and swiotlb is undecided: prices wrong by up to a factor of 4 turn it over",
    ]


def test_every_pair_of_neighbours_is_judged():
    prices = vector({"invalidation": 1000, "copied_kib": 100})
    rows = [
        row("c", copied_kib=500),
        row("b", invalidation=40),
        row("a", copied_kib=300),
        row("far", copied_kib=90_000),
    ]
    assert priced(rows, prices)[1] == (
        "the order of a and b and of b and c is undecided: prices wrong by up to a factor of 4 turn it over"
    )


def test_what_no_wrong_price_turns_over_is_decided():
    prices = vector({"invalidation": 1000})
    rows = [row("iommu-strict", invalidation=40), row("iommu-lazy", invalidation=3)]
    assert priced(rows, prices) == [
        "at the given prices (sources: guess) iommu-lazy costs 3,000 ns and iommu-strict costs 40,000 ns"
    ]


def test_what_has_no_price_costs_no_nothing():
    prices = vector({"invalidation": 1000})
    rows = [row("cma-bitmap"), row("swiotlb", copied_kib=7), row("iommu-strict", invalidation=40, map=9)]
    assert priced(rows, prices) == [
        "at the given prices (sources: guess) iommu-strict costs 40,000 ns",
        "these costs are without map: there is no price",
        "nothing that cma-bitmap and swiotlb do has a price: the time of an allocation is not priced",
    ]
    assert priced(rows[:1], prices) == [
        "nothing that cma-bitmap does has a price: the time of an allocation is not priced"
    ]


def test_prices_from_json(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text('{"unit": "cycles", "map": {"price": 5, "source": "our board"}, "unmap": null}')
    assert read_cost_vector(str(path)) == CostVector("cycles", {"map": Price(5.0, "our board")})
    path.write_text('{"unit": "cycles",\n"mpa": {"price": 5, "source": "our board"}}')
    with pytest.raises(InputError) as caught:
        read_cost_vector(str(path))
    assert str(caught.value) == f"{path}:2: has no key 'mpa'; did you mean 'map'?"


NINES = f"{int('9' * 4000):#x}"[:57] + "..."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", ": prices nothing; there are walk_ref, map, unmap, invalidation, copied_kib"),
        ("[walk]\nprice=1\nsource='x'", ":1: has no key 'walk'; did you mean 'walk_ref'?"),
        ("[map]\nprice=1", ":1: map.source is missing"),
        ("[map]\nprice=1\nsource=' '", ":3: map.source is ' ', not a text that can be printed"),
        ("[map]\nsource='x'", ":1: map.price is missing"),
        ("[map]\nprice=-1\nsource='x'", ":2: map.price is -1, not a number from 0 to 1e+18"),
        ("[map]\nprice=nan\nsource='x'", ":2: map.price is nan, not a number from 0 to 1e+18"),
        ("[map]\nprice=inf\nsource='x'", ":2: map.price is inf, not a number from 0 to 1e+18"),
        ("[map]\nprice=true\nsource='x'", ":2: map.price is True, not a number"),
        (f"[map]\nprice={'9' * 4000}\nsource='x'", f":2: map.price is {NINES}, not a number from 0 to 1e+18"),
        ("[map]\nprice=1\nsource='x'\nband=2", ":4: map has no key 'band'; there are price, source"),
        ("map = 3", ":1: map is 3, not a table"),
        ("unit = 3", ":1: unit is 3, not a text"),
        ('unit = "\\u001b[31m"', ":1: unit is '\\x1b[31m', not a text that can be printed"),
        ("[map", ": is not TOML: Expected ']' at the end of a table declaration (at end of document)"),
    ],
)
def test_refusals(tmp_path, text, sentence):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_cost_vector(str(path))
    assert str(caught.value) == f"{path}{sentence}"


def test_no_file(tmp_path):
    with pytest.raises(InputError) as caught:
        read_cost_vector(str(tmp_path / "none.toml"))
    assert str(caught.value) == f"{tmp_path}/none.toml: can't be read: No such file or directory"
