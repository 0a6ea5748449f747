"""Caches in stack files, and what an access costs the second time."""

import pytest

from swiommu.address import Access
from swiommu.errors import InputError
from swiommu.layer import CacheShape, access
from swiommu.stackfile import read_stack

BODY = """
[memory.ram]
base = 0x8000_0000
size = "1 GiB"

[layer.iommu]
kind = "paged"
on = "ram"
tables = 0x8000_0000
map = [{ at = 0x1000, to = 0x8010_0000, size = "16 KiB" }]
%s
"""


@pytest.fixture
def read(tmp_path):
    def write(lines):
        path = tmp_path / "s.toml"
        path.write_text(BODY % lines)
        return read_stack(str(path))["iommu"]

    return write


def refs(node, *ats):
    return [access(node, at, 4, Access.READ).refs for at in ats]


def test_without_a_word_there_is_none(read):
    node = read("")
    assert (node.tlb, node.iotlb) == (None, None)


def test_every_key(read):
    node = read(
        'tlb = { entries = 4, ways = 2, policy = "random", seed = 7, walk = [{}, { entries = 8, ways = 1 }] }\n'
        "iotlb = {}"
    )
    assert node.tlb.shape == CacheShape(4, 2, "random", 7)
    assert [level.shape for level in node.tlb.walks] == [CacheShape(), CacheShape(8, 1)]
    assert node.iotlb.shape == CacheShape()
    assert refs(node, 0x1000, 0x1000, 0x2000) == [4, 0, 2]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("tlb = 64", "tlb is 64, not a table"),
        ("tlb = { entries = 0 }", "tlb.entries is 0, not a whole number from 1 on"),
        ("tlb = { entries = true }", "tlb.entries is True, not a whole number"),
        ("tlb = { entries = 65537 }", "tlb.entries is 65537, more than 65536"),
        ("tlb = { entries = 8, ways = 3 }", "tlb: a cache of 8 entries can't have sets of 3 ways"),
        ('iotlb = { policy = "lro" }', "iotlb.policy is 'lro'; did you mean 'lru'?"),
        ("tlb = { size = 4 }", "tlb has no key 'size'; there are entries, ways, policy, seed, walk"),
        ("tlb = { walk = [{ entries = 0 }] }", "tlb.walk[0].entries is 0, not a whole number from 1 on"),
        ("tlb = { walk = [{}, { entries = 65537 }] }", "tlb.walk[1].entries is 65537, more than 65536"),
        (f"tlb = {{ walk = [{', '.join(['{}'] * 9)}] }}", "tlb.walk has 9 items, more than 8"),
    ],
)
def test_refused_in_one_sentence(read, line, text):
    with pytest.raises(InputError) as caught:
        read(line)
    assert str(caught.value).partition("s.toml")[2] == f":11: layer.iommu.{text}"
