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
