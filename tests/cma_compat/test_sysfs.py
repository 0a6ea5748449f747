import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cma_compat import CmaContext, cma_allocator, cma_device, cma_region
from cma_compat.sysfs import sysfs
from swiommu.address import PhysSpace
from swiommu.errors import Busy, InvalidArgument, NotFound, NotSupported
from swiommu.region.mainline import is_file_name

MIB = 1 << 20
FOLDER = "regions/0000000040000000"


def context(*names, **options):
    cma = CmaContext(**options)
    for at, name in enumerate(names):
        cma.register_region(cma_region(0x4000_0000 + at * MIB, MIB, name))
    return cma


def test_the_whole_folder_of_an_empty_context():
    assert dict(sysfs(CmaContext())) == {"allocators": "bf\n", "map": ""}
    assert dict(sysfs(CmaContext(allocators=[]))) == {"allocators": "", "map": ""}


def test_the_files_of_a_region():
    tree = sysfs(context("camera"))
    assert {path.rpartition("/")[2]: text for path, text in tree.items() if path.startswith(FOLDER)} == {
        "alloc": "",
        "free": "1048576\n",
        "name": "camera\n",
        "size": "1048576\n",
        "start": "40000000\n",
        "users": "0\n",
    }
    assert tree["regions/camera/size"] == tree[f"{FOLDER}/size"]
    assert tree.entries("regions") == ["0000000040000000", "camera"]


def test_it_is_as_things_are_now():
    cma = context("camera")
    tree = sysfs(cma)
    cma.set_map("*=camera")
    buffer = cma.alloc(cma_device("any"), None, 5000)
    files = ("alloc", "free", "users")
    assert [tree[f"{FOLDER}/{each}"] for each in files] == ["bf\n", "1040384\n", "1\n"]
    cma.free(buffer)
    assert [tree[f"{FOLDER}/{each}"] for each in files] == ["bf\n", "1048576\n", "0\n"]
    cma.unregister_region(cma.regions[0])
    assert tree.entries("regions") == []
    with pytest.raises(NotFound, match=r"^there is no 'regions/camera/free'$"):
        tree["regions/camera/free"]


def test_private_regions_have_no_link_and_no_name():
    tree = sysfs(context(None))
    assert tree.entries("regions") == ["0000000040000000"]
    assert tree[f"{FOLDER}/name"] == ""


def test_a_name_that_is_taken_gets_no_link():
    tree = sysfs(context("twice", "twice", "0000000040000000", ""))
    assert tree["regions/twice/start"] == "40000000\n"
    assert tree[f"{FOLDER}/name"] == "twice\n"
    assert len(tree.entries("regions")) == 5


def test_addresses_are_as_wide_as_the_platform_says():
    assert sysfs(context("a", width=36)).entries("regions") == ["040000000", "a"]


def test_regions_of_other_memories():
    cma = context("own")
    for space in (PhysSpace("card"), PhysSpace("a/b"), PhysSpace("nul\0"), PhysSpace("card")):
        cma.register_region(cma_region(0x4000_0000, MIB, within=space))
    cma.register_region(cma_region(0x5000_0000, 2 * MIB, "far", within=PhysSpace("card")))
    tree = sysfs(cma)
    assert [name.removeprefix("00000000") for name in tree.entries("regions")] == [
        "40000000",
        "40000000@",
        "40000000@a!b",
        "40000000@card",
        "40000000@card+",
        "50000000@card",
        "far",
        "own",
    ]
    assert tree["regions/far/size"] == "2097152\n"


def test_the_map_is_validated_kept_and_cleared():
    cma = context("a")
    tree = sysfs(cma)
    tree["map"] = "cam=a;\nand more"
    assert (tree["map"], cma.map) == ("cam=a\n", "cam=a")
    with pytest.raises(InvalidArgument) as raised:
        tree["map"] = "=a"
    assert str(raised.value) == "the rule '=a' at column 1 of the map has nothing before its \"=\""
    assert tree["map"] == "cam=a\n"
    for empty in ("\n", ""):
        tree["map"] = empty
        assert tree["map"] == ""


def test_what_is_read_is_cut_at_a_page():
    cma = context("a")
    cma.set_map("x=" + "ä" * 4000)
    assert sysfs(cma)["map"] == "x=" + "ä" * 2047


def test_choosing_an_allocator():
    cma = context("camera")
    tree = sysfs(cma)
    tree[f"{FOLDER}/alloc"] = "buddy\nrest"
    assert tree[f"{FOLDER}/alloc"] == "[buddy]\n"
    buffer = cma.alloc_from(["camera"], 5000)
    assert tree[f"{FOLDER}/alloc"] == "buddy\n"
    with pytest.raises(Busy) as raised:
        tree[f"{FOLDER}/alloc"] = "bf"
    assert str(raised.value) == "1 chunks are alive in the region at 0x40000000"
    assert tree[f"{FOLDER}/alloc"] == "buddy\n"
    cma.free(buffer)
    for default in ("", "\n", "\0bf"):
        tree[f"{FOLDER}/alloc"] = default
        assert tree[f"{FOLDER}/alloc"] == ""


def test_a_region_lives_on_after_its_allocator_was_taken_off():
    # In 2010 detaching marked the region so that nothing was ever attached again: ENOMEM for ever.
    cma = context("camera")
    tree = sysfs(cma)
    cma.free(cma.alloc_from(["camera"], 5000))
    tree[f"{FOLDER}/alloc"] = "missing"
    with pytest.raises(Exception, match="has no allocator"):
        cma.alloc_from(["camera"], 5000)
    assert tree[f"{FOLDER}/alloc"] == "[missing]\n"
    tree[f"{FOLDER}/alloc"] = "\n"
    cma.free(cma.alloc_from(["camera"], 5000))
    assert tree[f"{FOLDER}/alloc"] == "bf\n"


def test_cleanup_runs_when_an_allocator_is_taken_off():
    cleaned = []
    low = cma_allocator("low", alloc=lambda reg, size, align: None, free=lambda chunk: None, cleanup=cleaned.append)
    cma = CmaContext(allocators=[low])
    reg = cma_region(0x4000_0000, MIB, alloc=low)
    cma.register_region(reg)
    sysfs(cma)[f"{FOLDER}/alloc"] = "bf"
    assert cleaned == [reg]


def test_allocators_in_order_unnamed_as_a_dash():
    nothing = {"alloc": lambda reg, size, align: None, "free": lambda chunk: None}
    plug_ins = [cma_allocator(None, **nothing), cma_allocator("na", **nothing), cma_allocator(7, **nothing)]
    assert sysfs(CmaContext(allocators=plug_ins))["allocators"] == "- na 7\n"


@pytest.mark.parametrize("name", ["allocators", f"{FOLDER}/name", f"{FOLDER}/start", f"{FOLDER}/free"])
def test_what_cannot_be_written(name):
    with pytest.raises(NotSupported) as raised:
        sysfs(context("camera"))[name] = "x"
    assert str(raised.value) == f"{name} can't be written"


def test_a_dump(tmp_path):
    tree = sysfs(context("camera", None))
    written = tree.dump(tmp_path / "contiguous")
    assert written == [*written[:14], "regions/camera"]
    assert (tmp_path / "contiguous" / "regions" / "camera" / "name").read_text() == "camera\n"


@given(name=st.one_of(st.text(max_size=20), st.sampled_from(["..", "../../up", "/tmp/up", "x" * 300, "\ud800", "a\0"])))
def test_no_name_leads_out_of_a_dump(name, tmp_path_factory):
    top = tmp_path_factory.mktemp("dump")
    tree = sysfs(context(name))
    tree.dump(top / "in")
    links = [path for path in top.rglob("*") if stat.S_ISLNK(path.lstat().st_mode)]
    linked = is_file_name(name) and name != "0000000040000000"
    assert [path.name for path in links] == ([name] if linked else [])
    assert all(path.resolve().is_relative_to(top / "in") for path in top.rglob("*") if path != top / "in")
    assert [path.name for path in top.iterdir()] == ["in"]
    assert (f"regions/{name}/free" in tree) == linked
