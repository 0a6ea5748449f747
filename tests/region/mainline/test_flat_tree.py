import shutil
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.errors import InputError, NotSupported
from swiommu.region.mainline import FlatTree, TreeNode, parse_flat_tree, plan_reserved_memory, read_device_tree

BEGIN, END_NODE, PROP, NOP, END = (struct.pack(">I", each) for each in (1, 2, 3, 4, 9))


def padded(data):
    return data + bytes(-len(data) % 4)


def flat(structure, names=b"", *, reserved=(), version=17, last=16):
    """A tree of these parts behind a right header."""
    rsv = b"".join(struct.pack(">QQ", *each) for each in (*reserved, (0, 0)))
    at, total = 40 + len(rsv), 40 + len(rsv) + len(structure) + len(names)
    header = (0xD00DFEED, total, at, at + len(structure), 40, version, last, 0, len(names), len(structure))
    return struct.pack(">10I", *header) + rsv + structure + names


def node(name, *inside):
    return BEGIN + padded(name + b"\0") + b"".join(inside) + END_NODE


def prop(value, name_at=0):
    return PROP + struct.pack(">II", len(value), name_at) + padded(value)


GOOD = flat(node(b"", prop(b"\0\0\0\1"), NOP, node(b"cpu@0", prop(b"", 4))) + END, b"one\0two\0", reserved=[(16, 32)])


def changed(data, at, word):
    return data[: 4 * at] + struct.pack(">I", word) + data[4 * at + 4 :]


def test_reads_nodes_properties_and_reserved_ranges():
    tree = parse_flat_tree(GOOD + b"behind")
    assert tree.reserved == ((16, 32),)
    assert tree.root.cells("one") == (1,)
    assert [(path, each.properties) for path, each in tree.root.walk()] == [
        ("/", {"one": b"\0\0\0\1"}),
        ("/cpu@0", {"two": b""}),
    ]
    assert tree.root.child("cpu") is tree.root.child("cpu@0") is tree.root.children[0]
    assert tree.root.child("cp") is None


def test_the_first_of_two_properties_counts():
    tree = parse_flat_tree(flat(node(b"", prop(b"\1"), prop(b"\2")) + END, b"one\0"))
    assert tree.root.properties == {"one": b"\1"}


def test_version_16_tells_no_length():
    old = changed(flat(node(b"") + END, version=16), 9, 0xFFFFFFFF)
    assert parse_flat_tree(old).root.name == ""


CASES = [
    (b"", "is no flattened device tree: it begins with nothing, not d00dfeed"),
    (GOOD[:39], "ends after 39 bytes, within the header"),
    (GOOD[:-1], f"has {len(GOOD) - 1} bytes of the {len(GOOD)} that its header tells of"),
    (changed(GOOD, 1, 0xFFFFFFFF), f"has {len(GOOD)} bytes of the 4294967295 that its header tells of"),
    (changed(GOOD, 2, 0xFFFFFFF0), f"its structure at 0xfffffff0 leave the {len(GOOD)} bytes of the tree"),
    (changed(GOOD, 2, 73), "its structure at 0x49 does not begin at a multiple of 4"),
    (changed(GOOD, 3, 0x1000), f"its names at 0x1000 leave the {len(GOOD)} bytes of the tree"),
    (changed(GOOD, 4, 0x1000), "its reserved ranges from 0x1000 on have no end"),
    (changed(GOOD, 5, 3), "is of version 3 (from 16 on); versions 16 and 17 are read"),
    (changed(GOOD, 6, 18), "is of version 17 (from 18 on); versions 16 and 17 are read"),
    (changed(GOOD, 8, 5), "the name of a property at 0x4 of the names has no end within 255 bytes"),
    (changed(GOOD, 9, 4), "the name of a node at 0x4c has no end within 255 bytes"),
    (flat(END), "ends at 0x38 without a node"),
    (flat(END_NODE), "a node ends at 0x38 that did not begin"),
    (flat(prop(b"")), "a property at 0x38 is in no node"),
    (flat(BEGIN + padded(b"\0") + END), "ends at 0x40 within a node"),
    (flat(node(b"") + node(b"") + END), "a second root begins at 0x44"),
    (flat(node(b"")), "its structure ends at 0x44, within 4 bytes at 0x44"),
    (flat(node(b"", struct.pack(">I", 7))), "has an unknown word 0x7 at 0x40"),
    (
        flat(node(b"", PROP + struct.pack(">II", 0xFFFFFFFF, 0))),
        "its structure ends at 0x50, within 4294967295 bytes at 0x4c",
    ),
    (
        flat(node(b"", prop(b"", 0xFFFFFFFF)) + END),
        "the name of a property at 0xffffffff of the names has no end within 255 bytes",
    ),
    (flat(node(b"x" * 256) + END), "the name of a node at 0x3c has no end within 255 bytes"),
    (flat((BEGIN + padded(b"\0")) * 65), "its nodes are nested deeper than 64 at 0x238"),
    (b"\xd0\x0d\xfe\xed" + bytes(2 << 20), "is larger than 2 MiB: no device tree"),
]


@pytest.mark.parametrize(("data", "sentence"), CASES, ids=[text[:40] for _, text in CASES])
def test_what_is_wrong_is_one_sentence(data, sentence):
    with pytest.raises(InputError) as raised:
        parse_flat_tree(data)
    assert str(raised.value) == sentence
    with pytest.raises(InputError, match=r"^t\.dtb: "):
        parse_flat_tree(data, path="t.dtb")


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(GOOD)))
@settings(max_examples=300)
def test_damage_is_read_or_refused(damage, cut):
    data = bytearray(GOOD)
    for at, byte in damage:
        data[at] = byte
    try:
        tree = parse_flat_tree(bytes(data[: cut or None]))
    except InputError:
        return
    assert isinstance(tree, FlatTree)
    plan_reserved_memory(tree)


def test_many_nodes_and_names_cost_no_more_than_their_bytes():
    many = flat(node(b"", *[prop(b"", 0)] * 50_000, *[node(b"n")] * 50_000) + END, b"x" * 255 + b"\0")
    assert len(parse_flat_tree(many).root.children) == 50_000


SOURCE = """/dts-v1/;
/ { #address-cells = <1>; #size-cells = <1>; cam { memory-region = <&pool>; };
    reserved-memory { #address-cells = <1>; #size-cells = <1>; ranges;
        pool: pool@50000000 { compatible = "shared-dma-pool"; reg = <0x50000000 0x400000>; reusable; }; }; };
"""


@pytest.mark.skipif(shutil.which("dtc") is None, reason="there is no dtc")
def test_source_through_dtc(tmp_path):
    (tmp_path / "board.dts").write_text(SOURCE)
    tree = read_device_tree(str(tmp_path / "board.dts"))
    assert plan_reserved_memory(tree).uses == {"/cam": ("pool@50000000",)}
    (tmp_path / "bad.dts").write_text("/dts-v1/;\n/ { a = <1> };\n")
    with pytest.raises(InputError) as raised:
        read_device_tree(str(tmp_path / "bad.dts"))
    assert str(raised.value) == f"{tmp_path / 'bad.dts'}: dtc can't compile it: Error: <stdin>:2.13-14 syntax error"


def test_source_without_dtc(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    path = tmp_path / "board.dts"
    path.write_text(SOURCE)
    with pytest.raises(NotSupported) as raised:
        read_device_tree(str(path))
    assert str(raised.value) == (
        f"{path} is device-tree source, and there is no dtc to compile it: install it, or give a DTB"
    )


def test_dtc_that_fails_or_hangs(tmp_path, monkeypatch):
    path = tmp_path / "board.dts"
    path.write_text(SOURCE)
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"board\.dts: dtc can't compile it: .*No such file"):
        read_device_tree(str(path))
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)
    with pytest.raises(InputError, match=r"board\.dts: dtc can't compile it: "):
        read_device_tree(str(path))


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), ("nul\0", "embedded null byte")])
def test_files_that_cannot_be_read(name, reason):
    with pytest.raises(InputError) as raised:
        read_device_tree(name)
    assert str(raised.value) == f"{name}: can't be read: {reason}"


def test_an_empty_file_and_a_binary(tmp_path):
    for data, begins in ((b"", "nothing"), (b"\x7fELF\0", "7f454c46")):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(InputError) as raised:
            read_device_tree(str(tmp_path / "x"))
        assert str(raised.value).endswith(f"it begins with {begins}, not d00dfeed")


def test_cells_that_are_no_words():
    with pytest.raises(InputError, match=r"^property 'reg' of 'a' has 3 bytes, not whole words of 4$"):
        TreeNode("a", {"reg": b"123"}).cells("reg")
