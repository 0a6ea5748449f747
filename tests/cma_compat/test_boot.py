"""What a kernel's command line does to a context, and that nothing does it unasked."""

import gzip
import json

import pytest

from cma_compat import CmaContext, CmaInfo, cma_device, cma_region
from cma_compat.boot import apply_command_line

OLD = ("old", 0, 4096, 4096, None)


def early(cma):
    return [(each.name, each.start, each.size, each.alignment, each.alloc_name) for each in cma.early_regions]


@pytest.fixture
def cma():
    """A platform that set its own defaults."""
    cma = CmaContext()
    assert cma.cma_set_defaults([cma_region(0, 4096, "old")], "*=old") == 0
    return cma


def listed_for(cma, device):
    """How many regions of the list that the map yields are registered; a negative errno where it yields none."""
    info = CmaInfo()
    return cma.cma_info(info, cma_device(device)) or info.count


def test_regions_are_added_and_the_map_is_replaced(cma):
    line = 'root=/dev/sda1 cma=a=5000@1:bf cma.map="new=a,old" cma="b c=1M/64K;d=1" quiet'
    assert apply_command_line(cma, line) == []
    a, b, d = ("a", 4096, 8192, 4096, "bf"), ("b c", 0, 1 << 20, 1 << 16, None), ("d", 0, 4096, 4096, None)
    assert early(cma) == [OLD, a, b, d]
    assert all(each.copy_name for each in cma.early_regions[1:])
    assert (listed_for(cma, "new"), listed_for(cma, "other")) == (0, -2)


@pytest.mark.parametrize("line", ["", "quiet", "cma", "cma=", "acma=a=1 cma.=a=1 cma.maps=a=1 CMA=a=1", "-- cma=a=1"])
def test_other_parameters_and_empty_ones_do_nothing(cma, line):
    assert apply_command_line(cma, line) == []
    assert early(cma) == [OLD]
    assert listed_for(cma, "any") == 0  # the old map is in force


def test_empty_map_takes_the_old_one_away(cma):
    assert apply_command_line(cma, "cma.map=") == []
    assert listed_for(cma, "any") == -2


def test_fault_ends_its_own_parameter_only(cma, caplog):
    refusals = apply_command_line(cma, "cma=a=1;=1;b=1 cma.map=;; cma=c=1 cma=d=8K@0xffffffffffffe000;e=1")
    assert [(refusal.errno, str(refusal)) for refusal in refusals] == [
        (22, "cma=, column 5: a region has no name"),
        (22, "the rule '' at column 1 of the map has no \"=\""),
        (22, "a region of 8192 bytes from 0xffffffffffffe000 on leaves the 64 bits of an address"),
    ]
    assert [name for name, *_ in early(cma)] == ["old", "a", "c"]
    assert listed_for(cma, "any") == 0
    assert [record.getMessage() for record in caplog.records] == [
        "cma=a=1;=1;b=1: cma=, column 5: a region has no name",
        "cma.map=;;: the rule '' at column 1 of the map has no \"=\"",
        f"cma=d=8K@0xffffffffffffe000;e=1: {refusals[2]}",
    ]


def test_sixteenth_region_of_a_parameter_is_refused(cma):
    fifteen = ";".join(f"r{number}=1" for number in range(15))
    assert [refusal.errno for refusal in apply_command_line(cma, f"cma={fifteen};s=1 cma=t=1")] == [28]
    assert [name for name, *_ in early(cma)] == ["old", *(f"r{number}" for number in range(15)), "t"]


def test_recorded_lists_register_the_same_in_a_context(map_oracle):
    with (gzip.open if str(map_oracle).endswith(".gz") else open)(map_oracle, "rt", encoding="utf-8") as lines:
        header, *records = map(json.loads, lines)
    lists = [record for record in records if record["op"] == "cmdline"]
    for record in lists:
        cma = CmaContext(page_size=header["page_size"])
        refusals = apply_command_line(cma, f'cma="{record["cma"]}"')
        assert (-refusals[0].errno if refusals else 0) == record["result"]
        assert [list(region) for region in early(cma)] == record["regions"]
    assert len(lists) > 100
