"""Designs from TOML: what they become, and a sentence for everything that is wrong."""

import attrs
import pytest

from swiommu.answers import compare
from swiommu.errors import InputError, InvalidArgument
from swiommu.region import allocator_names
from swiommu.replay import PRESETS, Design, Knobs, equal_plan, find_design, read_designs
from swiommu.replay.backends import make_backend
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


@pytest.mark.parametrize("preset", ["carveout-best-fit", "software-iommu", "shim-over-iommu"])
def test_a_design_may_have_any_allocator(read, preset):
    names = allocator_names()
    designs = read(
        "".join(f'[[design]]\nname = "{name}"\nbased_on = "{preset}"\nallocator = "{name}"\n' for name in names)
    )
    answer = compare(read_trace("arm64-6.12-cam-cma64M-s81"), designs, with_need=False)
    rows = {row.name: row for row in answer.rows}
    assert set(names) <= set(rows)
    assert rows["buddy"].requests == rows["bitmap"].requests > rows["buddy"].failed


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


def test_sizes_may_have_a_unit(read):
    (design,) = read('[[design]]\nname = "mine"\nbased_on = "swiotlb"\npool = "4 MiB"\n')
    assert design == attrs.evolve(PRESETS["swiotlb"], name="mine", summary="swiotlb with other knobs", pool=4 << 20)


def test_a_design_made_in_python_is_checked_by_the_same_declarations():
    for options, sentence in (
        ({"pool": 100}, f"pool is 100, {POOL}"),
        ({"driver": "pagd"}, "driver is 'pagd'; did you mean 'paged'?"),
        ({"flush": "lazy"}, "flush is 'lazy', which needs driver 'paged', not 'none'"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            Design("a", "b", **options)
        assert str(caught.value) == sentence


POOL = "not a number of bytes from 2048 to 2**38"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", ": design is missing"),
        ("design = []", ":1: design has no [[design]] table"),
        ("design = 3", ":1: design is 3, not a list of tables"),
        ("[design]", ":1: design has no [[design]] table"),
        ("[design.a]", ":1: design is a table, not a list of tables"),
        ("design = [3]", ":1: design[0] is 3, not a table"),
        ("name = 'a'\n[[design]]\nname = 'a'\n", ":1: has no key 'name'; there are design"),
        ("[[design]]\n", ":1: design[0].name is missing"),
        ("[[design]]\nname = ''\n", ":2: design[0].name is empty"),
        ("[[design]]\nname = 5\n", ":2: design[0].name is 5, not a text"),
        (
            '[[design]]\nname = "b"\n\n[[design]]\nname = "a"\nalocator = "bitmap"\n',
            ":6: design[1] has no key 'alocator'; did you mean 'allocator'?",
        ),
        (
            '[[design]]\nname = "a"\nbasedon = "cma-bitmap"\n',
            ":3: design[0] has no key 'basedon'; did you mean 'based_on'?",
        ),
        (
            '[[design]]\nname = "a"\nallocator = "x"\n',
            ":3: design[0].allocator is 'x'; there are '', best_fit, bitmap, buddy, first_fit, tlsf",
        ),
        ('[[design]]\nname = "a"\nallocator = 7\n', ":3: design[0].allocator is 7, not a text"),
        (
            '[[design]]\nname = "a"\npool = "64 parsecs"\n',
            ":3: design[0].pool is '64 parsecs', not a number of bytes, or a text such as \"64 MiB\"",
        ),
        (
            '[[design]]\nname = "a"\npool = true\n',
            ':3: design[0].pool is True, not a number of bytes, or a text such as "64 MiB"',
        ),
        ('[[design]]\nname = "a"\npool = 100\n', f":3: design[0].pool is 100, {POOL}"),
        ('[[design]]\nname = "a"\npool = 0\n', f":3: design[0].pool is 0, {POOL}"),
        ('[[design]]\nname = "a"\npool = -1\n', f":3: design[0].pool is -1, {POOL}"),
        ('[[design]]\nname = "a"\npool = 0x8000_0000_0000\n', f":3: design[0].pool is 140737488355328, {POOL}"),
        (
            '[[design]]\nname = "a"\ndriver = "linear"\nallocator = "bitmap"\ndelta = 0x1_0000_0000_0000\n',
            ":5: design[0].delta is 281474976710656, not a number of bytes from -281474976710655 to 2**48 - 1",
        ),
        (
            '[[design]]\nname = "a"\nlent = 1_000_001\n',
            ":3: design[0].lent is 1000001, not a number of pages in a million from 0 to 1000000",
        ),
        (
            '[[design]]\nname = "a"\nflush = "lazy"\n',
            ":3: design[0].flush is 'lazy', which needs driver 'paged', not 'none'",
        ),
        (
            '[[design]]\nname = "a"\ndriver = "linear"\n',
            ":3: design[0].driver is 'linear', which needs an allocator: it has nothing but its region",
        ),
        (
            '[[design]]\nname = "a"\nbased_on = "shim-over-iommu"\nflush = "lazy"\n',
            ":4: design[0].flush is 'lazy', which needs allocator '': a chunk goes back at its unmap",
        ),
        (
            '[[design]]\nname = "a"\nformat = "amd-v1"\n',
            ":3: design[0].format is 'amd-v1', which needs driver 'paged', not 'none'",
        ),
        (
            '[[design]]\nname = "a"\ndelta = 4096\n',
            ":3: design[0].delta is 4096, which needs driver 'linear', not 'none'",
        ),
        (
            '[[design]]\nname = "a"\ndriver = "paged"\nbounce = "all"\n',
            ":4: design[0].bounce is 'all', which needs driver 'none', not 'paged'",
        ),
        (
            '[[design]]\nname = "a"\nlends = "movable"\n',
            (
                ":3: design[0].lends is 'movable', which needs driver 'none' and an allocator that lends, as 'bitmap', "
                "not 'none' with ''"
            ),
        ),
        (
            '[[design]]\nname = "a"\nbased_on = "gcma"\npinned = 5\n',
            ":4: design[0].pinned is 5, but droppable pages are never pinned",
        ),
        ('[[design]]\nname = "cma-bitmap"\n', ":2: design[0].name is 'cma-bitmap', a name that is taken"),
        ('[[design]]\nname = "a"\n[[design]]\nname = "a"\n', ":4: design[1].name is 'a', a name that is taken"),
        (
            '[[design]]\nname = "a"\nbased_on = "cma"\n',
            ":3: design[0].based_on is 'cma', not a preset; did you mean 'gcma'?",
        ),
        (
            '[[design]]\nname = "a"\nbased_on = 7\n',
            f":3: design[0].based_on is 7, not a preset; there are {', '.join(PRESETS)}",
        ),
    ],
)
def test_refusals(read, tmp_path, text, sentence):
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value) == f"{tmp_path}/designs.toml{sentence}"


@pytest.mark.parametrize(("pool", "slots"), [(2048, 128), (2049, 128), (3_000_000, 1536), (1 << 18, 128)])
def test_a_pool_is_rounded_up_to_segments(pool, slots, make_workload):
    workload = make_workload([], [])
    design = attrs.evolve(find_design("swiotlb"), pool=pool)
    assert make_backend(design, equal_plan(workload), workload, Knobs()).pool_bytes == 2048 * slots
