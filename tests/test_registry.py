"""Parts by name: those registered, and those that other packages offer as entry points."""

import json
import subprocess
import sys
import textwrap

import pytest

from swiommu.errors import InvalidArgument
from swiommu.iommu import FlushPolicy
from swiommu.layer import CacheShape, ReplacementPolicy
from swiommu.pagetable import FORMATS
from swiommu.policy import Policy
from swiommu.region import ALLOCATORS, Bitmap, Lending, RegisteredAllocator
from swiommu.registry import Registry
from swiommu.replay import Bounce, Design, Driver, FrameOrder, Knobs, Lends


def numbers():
    registry = Registry("odd number")
    registry.register("one", 1)
    registry.register("three", 3)
    return registry


def test_what_is_registered_is_a_mapping():
    registry = numbers()
    assert (list(registry), len(registry), "one" in registry, "two" in registry) == (["one", "three"], 2, True, False)
    assert dict(registry) == {"one": 1, "three": 3}
    with pytest.raises(KeyError):
        registry["two"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("one", "an odd number named 'one' is registered already"),
        ("", "an odd number needs a name, not ''"),
        (" ", "an odd number needs a name, not ' '"),
        ("a\x1b[31m", "an odd number needs a name, not 'a\\x1b[31m'"),
        (7, "an odd number needs a name, not 7"),
    ],
)
def test_a_name_that_can_t_be_registered(name, sentence):
    registry = numbers()
    with pytest.raises(InvalidArgument) as caught:
        registry.register(name, 5)
    assert str(caught.value) == sentence
    assert dict(registry) == {"one": 1, "three": 3}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tree", "no odd number is named 'tree'; did you mean 'three'?"),
        ("zz", "no odd number is named 'zz'; there are one, three"),
    ],
)
def test_a_name_that_nobody_registered(name, sentence):
    with pytest.raises(InvalidArgument) as caught:
        numbers().named(name)
    assert (str(caught.value), caught.value.name) == (sentence, name)


def test_what_is_no_part_is_refused_where_it_is_registered():
    with pytest.raises(InvalidArgument) as caught:
        ALLOCATORS.register("seven", 7)
    assert str(caught.value) == "7 makes no allocator: it can't be called"
    with pytest.raises(InvalidArgument) as caught:
        FORMATS.register("seven", 7)
    assert str(caught.value) == "7 is no page-table format"
    assert "seven" not in ALLOCATORS
    assert "seven" not in FORMATS


def test_an_allocator_says_what_it_can_do():
    assert ALLOCATORS["bitmap"].lending is Lending
    assert [name for name, each in ALLOCATORS.items() if each.by_release or each.lending] == ["bitmap"]
    with pytest.raises(InvalidArgument) as caught:
        Design("d", "", allocator="tlsf", lends="movable")
    assert str(caught.value) == (
        "lends is 'movable', which needs driver 'none' and an allocator that lends, as 'bitmap', not 'none' with 'tlsf'"
    )


def test_a_design_knows_what_is_registered_later(monkeypatch):
    with pytest.raises(InvalidArgument) as caught:
        Design("d", "", allocator="newer")
    names = ", ".join(["''", *sorted(ALLOCATORS)])
    assert str(caught.value) == f"allocator is 'newer'; there are {names}"
    monkeypatch.setitem(ALLOCATORS._parts, "newer", RegisteredAllocator(Bitmap, by_release=True))
    assert Design("d", "", allocator="newer").registered == RegisteredAllocator(Bitmap, by_release=True)


def test_texts_become_members_of_enumerations():
    design = Design("d", "", driver="paged", flush="lazy")
    assert (design.driver, design.flush) == (Driver.PAGED, FlushPolicy.LAZY)
    assert (Design("d", "", bounce="all").bounce, Design("d", "").lends) == (Bounce.ALL, Lends.NOBODY)
    assert Knobs(frames="random").frames is FrameOrder.RANDOM
    assert CacheShape(policy="fifo").policy is ReplacementPolicy.FIFO
    with pytest.raises(InvalidArgument) as caught:
        Design("d", "", driver="pages")
    assert str(caught.value) == "driver is 'pages'; did you mean 'paged'?"
    with pytest.raises(InvalidArgument) as caught:
        Knobs(frames="rand")
    assert str(caught.value) == "no frame order is named 'rand'; did you mean 'random'?"


def subclasses(cls):
    return {each for child in cls.__subclasses__() for each in (child, *subclasses(child))}


@pytest.mark.parametrize("policy", sorted(subclasses(Policy), key=lambda each: each.__name__))
def test_every_policy_refuses_what_it_has_no_member_for(policy):
    with pytest.raises(InvalidArgument) as caught:
        policy("nothing-like-it")
    assert str(caught.value).endswith(f"; there are {', '.join(each or repr('') for each in policy)}")
    assert all(policy(str(member)) is member for member in policy)


# -- of other packages


PLUG_IN = """
    import attrs
    from swiommu.input_file import key
    from swiommu.layer import Span, Window
    from swiommu.pagetable import MOCK
    from swiommu.region import BestFit
    from swiommu.stackfile import LayerKeys, LayerKind

    class Tall(BestFit):
        name = "tall"

    @attrs.frozen(kw_only=True)
    class MirrorKeys(LayerKeys):
        bits: int = key("How many bits it turns round.", 16, least=1, most=64)

    def mirror(builder, name, keys):
        half = 1 << keys.bits - 1
        return Window(name, Span(0, half, half), Span(half, half, -half))

    MIRROR = LayerKind(MirrorKeys, mirror, ways=lambda keys: 2)
    TALL = attrs.evolve(MOCK, name="mock-tall")
    NONSENSE = 7
"""
ENTRY_POINTS = """
    [swiommu.allocators]
    tall = plugged:Tall
    absent = missing:Thing
    [swiommu.formats]
    mock-tall = plugged:TALL
    nonsense = plugged:NONSENSE
    [swiommu.layers]
    mirror = plugged:MIRROR
    nonsense = plugged:NONSENSE
"""


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """Runs code where a package is installed that offers an allocator and a format."""
    (tmp_path / "plugged.py").write_text(textwrap.dedent(PLUG_IN))
    info = tmp_path / "plugged-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRY_POINTS))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from swiommu.__main__ import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_compare_takes_parts_of_other_packages_by_name(plugged, tmp_path):
    (tmp_path / "d.toml").write_text(
        '[[design]]\nname = "tall-area"\nallocator = "tall"\n'
        '[[design]]\nname = "tall-tables"\ndriver = "paged"\nformat = "mock-tall"\n'
        '[[design]]\nname = "tall-both"\nbased_on = "shim-over-iommu"\nallocator = "tall"\nformat = "mock-tall"\n'
    )
    answer = plugged("compare", "--design", "./d.toml", "--no-need", "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    served = {row["name"]: row["failed"] for row in json.loads(answer.stdout)["designs"]}
    assert served == {"tall-area": 3, "tall-tables": 0, "tall-both": 0}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            'allocator = "absent"',
            (
                "d.toml:3: design[0].allocator is 'absent': the allocator 'absent' of missing:Thing can't be loaded: "
                "ModuleNotFoundError: No module named 'missing'"
            ),
        ),
        (
            'driver = "paged"\nformat = "nonsense"',
            "d.toml:4: design[0].format is 'nonsense': 7 is no page-table format",
        ),
        ('allocator = "tal"', "d.toml:3: design[0].allocator is 'tal'; did you mean 'tall'?"),
    ],
)
def test_a_part_that_can_t_be_had_is_one_sentence(plugged, tmp_path, keys, sentence):
    (tmp_path / "d.toml").write_text(f'[[design]]\nname = "d"\n{keys}\n')
    answer = plugged("compare", "--design", "./d.toml", "--no-need")
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "", f"swiommu: ./{sentence}\n")


STACK = """
[memory.ram]
size = "64 KiB"
[layer.turned]
kind = "{kind}"
on = "ram"
{key}
[device.nic]
on = "turned"
"""


def test_a_stack_file_takes_kinds_of_layers_of_other_packages(plugged, tmp_path):
    (tmp_path / "s.toml").write_text(STACK.format(kind="mirror", key="bits = 13"))
    answer = plugged("explain", "translate", "./s.toml", "0x10", "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout)["runs"][0]["output"] == "0x1010"


@pytest.mark.parametrize(
    ("kind", "key", "sentence"),
    [
        ("mirrors", "", "./s.toml:5: layer.turned.kind is 'mirrors'; did you mean 'mirror'?"),
        ("mirror", "bits = 65", "./s.toml:7: layer.turned.bits is 65, not a whole number from 1 to 64"),
        ("mirror", "bit = 6", "./s.toml:7: layer.turned has no key 'bit'; did you mean 'bits'?"),
        ("nonsense", "", "./s.toml:5: layer.turned.kind is 'nonsense': 7 is no kind of layer"),
    ],
)
def test_a_kind_of_another_package_is_checked_as_ours_are(plugged, tmp_path, kind, key, sentence):
    (tmp_path / "s.toml").write_text(STACK.format(kind=kind, key=key))
    answer = plugged("explain", "translate", "./s.toml", "0x10")
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "", f"swiommu: {sentence}\n")
