import resource
import shutil
import struct
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.errors import InputError, NotSupported
from swiommu.region.mainline import (
    FlatTree,
    TreeNode,
    parse_flat_tree,
    plan_reserved_memory,
    read_device_tree,
    tree_source,
)

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


needs_dtc = pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc (device-tree-compiler) is not installed")


@pytest.fixture
def compiled(tmp_path):
    """Read the source as ``board.dts``; a refusal's sentence without the folder."""

    def read(source):
        path = tmp_path / "board.dts"
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        try:
            return read_device_tree(str(path))
        except (InputError, NotSupported) as error:
            return str(error).removeprefix(f"{tmp_path}/")

    return read


@needs_dtc
def test_source_through_dtc(compiled):
    assert plan_reserved_memory(compiled(SOURCE)).uses == {"/cam": ("pool@50000000",)}


@needs_dtc
@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("/dts-v1/;\n/ { a = <1> };\n", "board.dts:2: dtc can't compile it: syntax error"),
        (
            '/dts-v1/;\n# 7 "\x1b[31mx"\n/ { a = <1> };\n',
            "board.dts: dtc can't compile it: Error: ?[31mx:7.13-14 syntax error",
        ),
        ("/dts-v1/;\n/ { " + "a {" * 100_000, "board.dts:2: dtc can't compile it: memory exhausted"),
        (
            "/dts-v1/;\n/ { a = &none; };",
            (
                "board.dts:2: dtc can't compile it: (path_references): /: Reference to non-existent node or label "
                '"none"'
            ),
        ),
    ],
)
def test_source_that_dtc_refuses(compiled, source, sentence):
    begin = time.monotonic()
    assert compiled(source) == sentence
    assert time.monotonic() - begin < 5


BYTES = "/incbin/ would read another file: put its bytes here, or give a DTB"
TEXT = "/include/ would read another file: put its text here, or give a DTB"
CPP = "#include is for the preprocessor: run `cpp -undef -x assembler-with-cpp` first, or give a DTB"


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ('/dts-v1/;\n/ { x = /incbin/("/dev/zero"); };', f"board.dts:2: {BYTES}"),
        ('/dts-v1/;\n/ { x = [ 00 /incbin/("/dev/zero") ]; };', f"board.dts:2: {BYTES}"),
        ('/dts-v1/;\n\n/include/ "/etc/passwd"', f"board.dts:3: {TEXT}"),
        ('/include/"/dev/zero"', f"board.dts:1: {TEXT}"),
        ("/dts-v1/;\n#include <dt-bindings/gpio/gpio.h>\n", f"board.dts:2: {CPP}"),
        ('/dts-v1/;\n  #  include "soc.dtsi"\n', f"board.dts:2: {CPP}"),
        # what dtc takes for the end of a text, a literal or a comment is one here
        ('/ { a = "\\\\"; b = /incbin/("x"); };', f"board.dts:1: {BYTES}"),
        ("/ { a = <'\\' /incbin/(\"x\")", f"board.dts:1: {BYTES}"),
        ("/ { a = <'\\''>; b = /incbin/(\"x\"); };", f"board.dts:1: {BYTES}"),
        ('/* /incbin/ "*/ /include/ "x"', f"board.dts:1: {TEXT}"),
        ('// " \n/include/ "x"', f"board.dts:2: {TEXT}"),
        ('&{/a b} /include/ "x"', f"board.dts:1: {TEXT}"),
    ],
)
def test_source_that_names_other_files(compiled, monkeypatch, source, sentence):
    monkeypatch.setattr(shutil, "which", lambda name: pytest.fail(f"{name} is looked for"))
    assert compiled(source) == sentence


@needs_dtc
def test_names_of_files_that_are_no_words(compiled):
    names = """/dts-v1/;
        // /incbin/("x")
        / { a = "/include/ \\"x\\"", "#include"; b = <'\\''>; /* /include/ "x" */
            include { c = &{/include/incbin}; incbin { }; }; };
        """
    tree = compiled(names)
    assert tree.root.strings("a") == ('/include/ "x"', "#include")
    assert tree.root.child("include").strings("c") == ("/include/incbin",)


@pytest.mark.parametrize("text", ['\\"', '"\\\n', "'", "/*", "\\'", "&{", '"', "/* '"])
def test_words_are_looked_for_in_linear_time(compiled, monkeypatch, text):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    begin = time.process_time()
    assert "there is no dtc" in compiled(text * (1_900_000 // len(text)))
    assert time.process_time() - begin < 5


def test_source_without_dtc(compiled, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compiled(SOURCE) == (
        "board.dts is device-tree source, and there is no dtc to compile it: install it (device-tree-compiler), or "
        "give a DTB"
    )


def program(tmp_path, monkeypatch, text):
    """Let ``dtc`` be a program of Python."""
    path = tmp_path / "dtc"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(path))


def test_dtc_that_is_gone_or_fails(compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / "gone"))
    assert compiled(SOURCE) == "board.dts: dtc can't be run: No such file or directory"
    program(tmp_path, monkeypatch, "raise SystemExit(3)")
    assert compiled(SOURCE) == "board.dts: dtc can't compile it: it does not say why"
    program(tmp_path, monkeypatch, "print('no tree')")
    assert compiled(SOURCE) == "board.dts: is no flattened device tree: it begins with 6e6f2074, not d00dfeed"


def test_dtc_that_hangs(compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(tree_source, "_SECONDS", 0.3)
    program(tmp_path, monkeypatch, "import time\ntime.sleep(60)")
    begin = time.monotonic()
    assert compiled(SOURCE) == "board.dts: dtc can't compile it in 0.3 s"
    assert time.monotonic() - begin < 10


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits a process from outside")
def test_dtc_that_takes_too_much_memory(compiled, tmp_path, monkeypatch):
    program(
        tmp_path,
        monkeypatch,
        "import sys\nsys.stdin.read()\ntry:\n    bytes(300 << 20)\nexcept MemoryError:\n    sys.exit('no memory')",
    )
    assert compiled(SOURCE) == "board.dts: dtc can't compile it: no memory"


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
