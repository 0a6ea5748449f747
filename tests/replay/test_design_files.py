"""Designs from TOML: what they become, and a sentence for everything that is wrong."""

import pytest

from swiommu.answers import compare
from swiommu.errors import InputError
from swiommu.replay import PRESETS, Design, read_designs
from swiommu.trace import read_trace


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "designs.toml"
        path.write_text(text)
        return read_designs(str(path))

    return read_text


def test_a_preset_with_one_knob_turned(read):
    (design,) = read('[[design]]\nname = "mine"\nbased_on = "software-iommu"\ndelta = 0x10000000\n')
    preset = PRESETS["software-iommu"]
    assert (design.driver, design.allocator, design.delta) == (preset.driver, preset.allocator, 1 << 28)
    assert design.summary == "software-iommu with other knobs"


def test_a_design_of_its_own_and_several_in_order(read):
    designs = read('[[design]]\nname = "a"\n[[design]]\nname = "b"\ndriver = "paged"\nflush = "lazy"\n')
    assert designs == [Design("a", "from a file"), Design("b", "from a file", "paged", flush="lazy")]


def test_a_copy_of_a_preset_is_the_preset_in_every_number(read):
    (design,) = read('[[design]]\nname = "copy"\nbased_on = "cma-bitmap"\n')
    answer = compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["cma-bitmap", design], with_need=False)
    assert answer.rows[1].same_as == "cma-bitmap"


def test_the_format_of_a_page_table_changes_what_it_costs(read):
    formats = ("vtd-ss-3", "vtd-ss-4", "x86-64-5", "amd-v1", "arm-lpae-4k-s1", "riscv-sv48x4")
    designs = read(
        "".join(f'[[design]]\nname = "{name}"\nbased_on = "iommu-strict"\nformat = "{name}"\n' for name in formats)
    )
    answer = compare(read_trace("arm64-6.12-smmu-camnvme-cma128M-s89"), ["iommu-strict", *designs], with_need=False)
    rows = {row.name: row for row in answer.rows}
    mock = rows["iommu-strict"]
    for name in formats:
        assert (rows[name].failed, rows[name].lost_by_kind) == (mock.failed, mock.lost_by_kind)
        # A kernel keeps tables that became empty, between the data, whose frames are then less contiguous.
        assert rows[name].table_bytes > mock.table_bytes
        assert rows[name].maps > mock.maps
        assert rows[name].invalidations > mock.invalidations
    assert rows["vtd-ss-4"].walk_refs_per_mib == rows["arm-lpae-4k-s1"].walk_refs_per_mib
    assert rows["vtd-ss-3"].walk_refs_per_mib < mock.walk_refs_per_mib < rows["x86-64-5"].walk_refs_per_mib
    assert (
        rows["amd-v1"].walk_refs_per_mib < rows["vtd-ss-3"].walk_refs_per_mib
    )  # three levels, and leaves of 8 KiB to 1 MiB
    assert rows["riscv-sv48x4"].table_bytes > rows["vtd-ss-4"].table_bytes  # a root of 16 KiB


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no [[design]] table"),
        ("design = 3", "holds no [[design]] table"),
        ("[[design]]\n", "a [[design]] needs a name"),
        (
            '[[design]]\nname = "a"\nallocater = "bitmap"\n',
            "design 'a' has no knob 'allocater'; did you mean 'allocator'?",
        ),
        (
            '[[design]]\nname = "a"\nallocator = "tlsf"\n',
            "design 'a': allocator is 'tlsf', not one of '', 'best_fit', 'bitmap'",
        ),
        ('[[design]]\nname = "a"\npool = "64M"\n', "design 'a': pool is '64M', not a number of bytes"),
        ('[[design]]\nname = "a"\nflush = "lazy"\n', "design 'a': flush 'lazy' needs driver 'paged', not 'none'"),
        (
            '[[design]]\nname = "a"\ndriver = "linear"\n',
            "design 'a': driver 'linear' needs an allocator: it has nothing but its region",
        ),
        (
            '[[design]]\nname = "a"\nbased_on = "shim-over-iommu"\nflush = "lazy"\n',
            "design 'a': flush 'lazy' needs allocator '': a chunk goes back at its unmap",
        ),
        ('[[design]]\nname = "a"\nformat = "amd-v1"\n', "design 'a': format 'amd-v1' needs driver 'paged', not 'none'"),
        ('[[design]]\nname = "a"\ndelta = 4096\n', "design 'a': delta needs driver 'linear', not 'none'"),
        (
            '[[design]]\nname = "a"\ndriver = "paged"\nbounce = "all"\n',
            "design 'a': bounce 'all' needs driver 'none', not 'paged'",
        ),
        ('[[design]]\nname = "cma-bitmap"\n', "the name 'cma-bitmap' is taken; give the design another"),
        ('[[design]]\nname = "a"\n[[design]]\nname = "a"\n', "the name 'a' is taken; give the design another"),
        (
            '[[design]]\nname = "a"\nbased_on = "cma"\n',
            f"no design is named 'cma': did you mean 'gcma'? there are as-recorded, {', '.join(PRESETS)}",
        ),
    ],
)
def test_refusals(read, tmp_path, text, sentence):
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value) == f"{tmp_path}/designs.toml: {sentence}"
