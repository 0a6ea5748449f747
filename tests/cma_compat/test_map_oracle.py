"""The recorded maps, lookups and region lists of 2010."""

import gzip
import json

import pytest

from cma_compat.cmdline import parse_regions
from cma_compat.device_map import lookup, validate
from swiommu.errors import SwiommuError


@pytest.fixture
def records(map_oracle):
    with (gzip.open if str(map_oracle).endswith(".gz") else open)(map_oracle, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def errno_or(call, *arguments):
    try:
        return call(*arguments)
    except SwiommuError as refusal:
        return -refusal.errno


def regions_of(text, page_size):
    """What a record of a list tells: result, and the regions registered."""
    try:
        result, regions = 0, parse_regions(text, page_size=page_size)
    except SwiommuError as refusal:
        result, regions = -refusal.errno, refusal.regions
    return result, [[each.name, each.start, each.size, each.alignment, each.alloc_name] for each in regions]


def mismatches(records):
    header, *operations = records
    in_force = None
    wrong = []
    for line, record in enumerate(operations, 2):
        told = record["result"]
        if record["op"] == "map":
            result = errno_or(validate, record["map"])
            in_force = record["map"][:result] if result >= 0 else in_force
        elif record["op"] == "where":
            result = errno_or(lookup, in_force, record["dev"], record["type"])
        else:
            result = regions_of(record["cma"], header["page_size"])
            told = (record["result"], record["regions"])
        if result != told:
            wrong.append(line)
    return wrong


def test_every_record_is_answered(records):
    assert len(records) - 1 == records[0]["ops"] > 1000
    assert {record["op"] for record in records[1:]} == {"map", "where", "cmdline"}
    assert mismatches(records) == []


def test_falsified_records_are_found_and_no_others(records):
    chosen = list(range(9, len(records), 101))
    for number, line in enumerate(chosen):
        record = records[line - 1]
        if record.get("regions") and number % 2:
            record["regions"][-1][number % 4] = "falsified"
        else:
            record["result"] = "falsified" if isinstance(record["result"], str) else record["result"] + 1
    assert mismatches(records) == chosen
