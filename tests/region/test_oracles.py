"""Both allocators against recorded sequences of the published ones, record by record."""

import gzip
import json
import random

import pytest

from swiommu.address import PhysSpace
from swiommu.errors import Busy, InvalidArgument, NoMemory, SwiommuError
from swiommu.region import Bitmap, Region


def read_records(path):
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rt", encoding="ascii") as lines:
        return [json.loads(line) for line in lines]


def outcome(call):
    """A result as the oracles write it: what the call returned, or the negative errno."""
    try:
        return call()
    except SwiommuError as error:
        return -error.errno


def best_fit_answers(records):
    """What this code says where the recording says something, as (line, record's fields, ours)."""
    header = records[0]
    start = PhysSpace("oracle").at(header["region_start"])
    region = Region(start, header["region_size"], page_size=header["page_size"])
    for line, record in enumerate(records[1:], 2):
        ours = {}
        region.allocator.skipped = 0  # a request refused before the allocator is asked has skipped nothing
        if record["op"] == "alloc":
            ours["result"] = outcome(lambda r=record: region.alloc(r["size"], r["align"]).start.value)
            ours["skipped"] = region.allocator.skipped
        elif record["op"] == "free":
            ours["result"] = outcome(lambda r=record: region.free(region.space.at(r["addr"])) or 0)
        else:
            ours["holes"] = [[hole.start.value, hole.size] for hole in region.holes()]
            region.check()
        ours |= {"free_space": region.free_space, "users": region.users}
        yield line, record, ours


def alloc_pages(area, count, order):
    try:
        return area.alloc_pages(count, order), area.retries
    except InvalidArgument:  # the kernel's null for a count of 0
        return None, 0
    except (NoMemory, Busy) as error:
        return None, error.retries


def bitmap_answers(records, profile):
    header = records[0]
    page = header["page_size"]
    area = Bitmap(
        header["base_pfn"] * page,
        header["count"] * page,
        page_size=page,
        order_per_bit=header["order_per_bit"],
        profile=profile,
    )
    for line, record in enumerate(records[1:], 2):
        ours = {}
        if record["op"] == "alloc":
            ours["result"], ours["retries"] = alloc_pages(area, record["count"], record["align"])
        elif record["op"] == "release":
            ours["result"] = area.release(record["pfn"], record["count"])
        elif record["op"] == "busy":
            area.set_busy(record["pfn"], record["count"], record["state"])
        else:
            ours["runs"] = ours["free_runs"] = [list(run) for run in area.free_runs()]
            area.check()
        ours["free_bits"] = area.free_bits
        yield line, record, ours


def mismatches(answers):
    """Lines where a recorded field is not what this code says; every recorded answer must be one that we give."""
    inputs = {"op", "size", "align", "addr", "pfn", "count", "state"}
    wrong, compared = [], 0
    for line, record, ours in answers:
        told = record.keys() - inputs
        assert told <= ours.keys(), f"line {line}: nothing is said about {told - ours.keys()}"
        compared += len(told)
        if any(record[field] != ours[field] for field in told):
            wrong.append(line)
    assert compared > 1000, "an empty comparison proves nothing"
    return wrong


def falsify(records, fields, seed):
    """A copy in which one answer each of some records is wrong, and the lines of these records."""
    chance = random.Random(seed)
    records = [dict(record) for record in records]
    lines = []
    for field in fields:
        index = chance.choice([i for i, record in enumerate(records) if field in record and i + 1 not in lines and i])
        value = records[index][field]
        if isinstance(value, list):
            records[index][field] = value[:-1] if value else [[0, 1]]
        elif isinstance(value, bool):
            records[index][field] = not value
        else:
            records[index][field] = 1 if value is None else value + 1
        lines.append(index + 1)
    return records, sorted(lines)


def test_best_fit_answers_every_record(best_fit_oracle):
    assert mismatches(best_fit_answers(read_records(best_fit_oracle))) == []


@pytest.mark.parametrize("profile", ["6.12", "7.3"])
def test_bitmap_answers_every_record(bitmap_oracle, profile):
    assert mismatches(bitmap_answers(read_records(bitmap_oracle), profile)) == []


def test_falsified_best_fit_records_are_found_and_no_others(best_fit_oracle):
    fields = ["result", "free_space", "users", "skipped", "holes", "result"]
    records, lines = falsify(read_records(best_fit_oracle), fields, seed=14)
    assert mismatches(best_fit_answers(records)) == lines


def test_falsified_bitmap_records_are_found_and_no_others(bitmap_oracle):
    fields = ["result", "retries", "free_bits", "runs", "free_runs", "result"]
    records, lines = falsify(read_records(bitmap_oracle), fields, seed=17)
    assert mismatches(bitmap_answers(records, "6.12")) == lines
