"""The recorded sequences over several regions: map, lists, lazy attachment, information, by the calls of 2010."""

import gzip
import json

from cma_compat import CmaContext, CmaInfo, cma_device, cma_region, errno_of

FIELDS = ("lower_bound", "upper_bound", "total_size", "free_size", "count")


def read_records(path):
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rt", encoding="ascii") as lines:
        return [json.loads(line) for line in lines]


class Replay:
    """Answers one record after the other, as a dict of what the record has of results."""

    def __init__(self, header):
        self.cma = CmaContext(page_size=header["page_size"])
        self.regions = []

    def answer(self, record):
        arguments = {name: value for name, value in record.items() if name not in {"op", "result", *FIELDS}}
        return getattr(self, f"do_{record['op']}")(**arguments)

    def do_region(self, id, name, start, size, alloc_name):  # noqa: A002 - the record's name
        assert id == len(self.regions)
        self.regions.append(cma_region(start, size, name, alloc_name))
        return {"result": self.cma.cma_region_register(self.regions[-1])}

    def do_map(self, map):  # noqa: A002 - the record's name
        code = self.cma.cma_set_defaults(None, map)
        return {"result": code or len(self.cma.map)}

    def do_alloc(self, dev, type, size, align):  # noqa: A002 - the record's name
        device = None if dev is None else cma_device(dev)
        return address(self.cma.cma_alloc(device, type, size, align))

    def do_alloc_from(self, regions, size, align):
        return address(self.cma.cma_alloc_from(regions, size, align))

    def do_alloc_from_region(self, region, size, align):
        reg = self.regions[region] if region is not None and 0 <= region < len(self.regions) else None
        return address(self.cma.cma_alloc_from_region(reg, size, align))

    def do_free(self, addr):
        return {"result": self.cma.cma_free(addr)}

    def do_info(self, dev, type):  # noqa: A002 - the record's name
        info = CmaInfo(*["untouched"] * 5)
        code = self.cma.cma_info(info, None if dev is None else cma_device(dev), type)
        told = {name: getattr(info, name) for name in FIELDS}
        return {"result": code} if dev is None and set(told.values()) == {"untouched"} else {"result": code, **told}

    def do_info_about(self, regions):
        info = CmaInfo()
        code = self.cma.cma_info_about(info, regions)
        return {"result": code, **{name: getattr(info, name) for name in FIELDS}}

    def do_state(self, regions=None):
        state = [[int(reg.registered), reg.free_space, reg.users, int(reg.alloc is not None)] for reg in self.regions]
        return {"regions": state}


def address(answer):
    return {"result": errno_of(answer) or answer.value}


def told(record):
    wanted = {"state": ("regions",)}.get(record["op"], ("result", *FIELDS))
    return {name: record[name] for name in wanted if name in record}


def mismatches(records):
    replay = Replay(records[0])
    wrong = []
    for line, record in enumerate(records[1:], 2):
        given = {**record, "regions": None} if record["op"] == "state" else record
        if replay.answer(given) != told(record):
            wrong.append(line)
    replay.cma.check()
    return wrong


def test_every_record_is_answered(core_oracle):
    records = read_records(core_oracle)
    assert len(records) > 1000
    assert mismatches(records) == []


def test_falsified_records_are_found_and_no_others(core_oracle):
    records = read_records(core_oracle)
    chosen = [line for line, record in enumerate(records, 1) if "result" in record][5::97]
    for line in chosen:
        records[line - 1]["result"] += 1
    assert mismatches(records) == chosen
