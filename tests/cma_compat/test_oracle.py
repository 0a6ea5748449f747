"""The recorded best-fit sequences once more, through the calls of 2010."""

import gzip
import json

from cma_compat import CmaContext, cma_region, errno_of


def read_records(path):
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rt", encoding="ascii") as lines:
        return [json.loads(line) for line in lines]


def mismatches(records):
    header = records[0]
    cma = CmaContext(page_size=header["page_size"])
    region = cma_region(header["region_start"], header["region_size"], alloc_name="bf")
    assert cma.cma_region_register(region) == 0
    wrong = []
    for line, record in enumerate(records[1:], 2):
        if record["op"] == "alloc":
            result = cma.cma_alloc_from_region(region, record["size"], record["align"])
            result = errno_of(result) or result.value
        elif record["op"] == "free":
            result = cma.cma_free(record["addr"])
        else:
            result = None
        told = (record.get("result"), record.get("free_space", region.free_space), record.get("users", region.users))
        if told != (result, region.free_space, region.users):
            wrong.append(line)
    return wrong


def test_the_shim_answers_every_record(best_fit_oracle):
    records = read_records(best_fit_oracle)
    assert len(records) > 1000
    assert mismatches(records) == []


def test_falsified_records_are_found_and_no_others(best_fit_oracle):
    records = read_records(best_fit_oracle)
    answered = [line for line, record in enumerate(records, 1) if "result" in record and "users" in record]
    chosen = answered[7::101]
    for number, line in enumerate(chosen):
        field = ("result", "free_space", "users")[number % 3]
        records[line - 1][field] += 1
    assert mismatches(records) == chosen
