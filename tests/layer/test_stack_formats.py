"""Stack files with the page tables of real hardware: every format that has a name can be said there."""

import pytest

from swiommu.address import Access
from swiommu.errors import InputError
from swiommu.layer import FaultClass, access
from swiommu.pagetable.formats import FORMATS
from swiommu.stackfile import read_stack

RAM = '[memory.ram]\nbase = 0x8000_0000\nsize = "1 GiB"\n'
NAMES = pytest.mark.parametrize("name", FORMATS)


def written(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_text(text)
    return read_stack(str(path))


def layer(name, *rows, label="s1", on="ram", tables="0x8000_0000", more=""):
    maps = ", ".join(f"{{ {row} }}" for row in rows)
    return (
        f'[layer.{label}]\nkind = "paged"\non = "{on}"\nformat = "{name}"\ntables = {tables}\nmap = [{maps}]\n{more}\n'
    )


@NAMES
def test_an_access_goes_through(tmp_path, name):
    stack = written(tmp_path, layer(name, 'at = 0x1_0000, to = 0x8201_0000, size = "128 KiB"') + RAM)
    answer = access(stack["s1"], 0x1_2345, 8, Access.WRITE)
    assert [(run.output, run.memory) for run in answer.runs] == [(0x8201_2345, "ram")]
    form = FORMATS[name]
    assert answer.refs == len(form.levels) - form.start
    assert access(stack["s1"], 0x3_0000, 1, Access.READ).fault.fault_class is FaultClass.DATA


@NAMES
def test_the_words_lie_in_the_memory(tmp_path, name):
    form = FORMATS[name]
    at = form.levels[-1].shift
    stack = written(tmp_path, layer(name, f"at = {3 << at}, to = {0x9 << 28}, size = {1 << at}") + RAM)
    walk = stack["s1"].layer.table.walk(3 << at)
    assert [stack["ram"].layer.word(step.table + 8 * step.slot, 8) for step in walk.steps] == [
        step.entry for step in walk.steps
    ]
    assert walk.steps[-1].entry == form.leaf_entry(0x9 << 28, len(form.levels) - 1, 3, 0)


@NAMES
def test_the_length_of_a_walk_is_the_formats(tmp_path, name):
    """The dearest walk that twenty layers on one another could take: T = L (T + 1) + T, from 0."""
    deep = [layer(name, label=f"s{n}", on=f"s{n + 1}" if n < 19 else "ram", tables="0") for n in range(20)]
    refs, dear = 0, ""
    for n in reversed(range(20)):
        refs = len(FORMATS[name].levels) * (refs + 1) + refs
        if refs > 20000:
            dear = f"layer.s{n}: a walk from here could take {refs} references, more than 20000"
            break
    with pytest.raises(InputError) as caught:
        written(tmp_path, "".join(deep) + RAM)
    assert str(caught.value).partition("s.toml:")[2].partition(": ")[2] == dear


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            layer("x86-64-4", "at = 0x8000_0000_0000, to = 0, size = 4096"),
            "map[0]: 0x1000 bytes at 0x800000000000 leave the sign-extended 48-bit input of format 'x86-64-4'",
        ),
        (
            layer("vtd-ss-3", "at = 0x80_0000_0000, to = 0, size = 4096"),
            "map[0]: 0x1000 bytes at 0x8000000000 leave the 39-bit input",
        ),
        (
            layer("riscv-sv48-napot", "at = 0, to = 0, size = 4096, page = 8192"),
            "map[0].page is 0x2000, not one of 0x8000000000, 0x40000000, 0x200000, 0x10000, 0x1000",
        ),
        (layer("vtd-s-4"), "format is 'vtd-s-4'; did you mean 'vtd-ss-4'?"),
        (
            layer("amd-v1", 'at = 0, to = 0, size = "64 GiB", page = "8K"'),
            "map[0]: 8388608 pages are more than a file may map, 65536 in all",
        ),
        (
            (
                layer("amd-v1", 'at = 0, to = 0, size = "32 GiB", page = "1M"')
                + layer("arm-lpae-64k-s1", *(f"at = {n << 29}, to = 0, size = '64K'" for n in range(4000)), label="s2")
            ).replace('on = "ram"\n', ""),
            "map[3068]: pages of 4 KiB for tables are more than 65536 in all by now",
        ),
    ],
    ids=["not canonical", "too far", "page size", "name", "pages", "tables"],
)
def test_mistakes(tmp_path, text, reason):
    with pytest.raises(InputError) as caught:
        written(tmp_path, text + RAM)
    assert str(caught.value).endswith(reason)


def test_the_upper_half_is_reached_by_canonical_addresses(tmp_path):
    stack = written(tmp_path, layer("x86-64-4", "at = 0xffff_8000_0000_0000, to = 0x8200_0000, size = 4096") + RAM)
    assert access(stack["s1"], 0xFFFF_8000_0000_0010, 1, Access.READ).runs[0].output == 0x8200_0010
