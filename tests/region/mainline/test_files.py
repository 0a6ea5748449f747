import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import InputError, InvalidArgument, NotFound, NotSupported, OutOfRange
from swiommu.region.mainline import Link, TextFile, TextTree, is_file_name, parse_number

HOSTILE = ["", ".", "..", "/", "a/b", "../up", "/etc/passwd", "nul\0", "x" * 256, "\ud800", "ä" * 128]


def tree(extra=()):
    said = []
    inner = {"one": TextFile(lambda: "1\n"), "in": TextFile(write=said.append), **dict(extra)}
    return TextTree(lambda: {"dir": inner, "way": Link("dir"), "short": Link("dir/one")}), said


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("nothing", NotFound, "there is no 'nothing'"),
        ("dir/one/more", NotFound, "there is no 'dir/one/more'"),
        ("dir//one", NotFound, "there is no 'dir//one'"),
        ("/dir/one", NotFound, "there is no '/dir/one'"),
        ("dir/../dir/one", NotFound, "there is no 'dir/../dir/one'"),
        ("dir", InvalidArgument, "dir is a folder"),
        ("way", InvalidArgument, "way is a folder"),
        ("", InvalidArgument, "the top is a folder"),
        ("dir/in", NotSupported, "dir/in can't be read"),
    ],
)
def test_what_cannot_be_read(path, error, text):
    with pytest.raises(error) as raised:
        tree()[0][path]
    assert str(raised.value) == text
    assert path not in tree()[0]
    assert tree()[0].get(path, "else") == "else"


def test_reads_writes_lists_through_links_as_well():
    files, said = tree()
    assert files["way/one"] == files["short"] == files["dir/one"] == "1\n"
    files["way/in"] = "5"
    assert said == ["5"]
    assert files.entries() == ["dir", "short", "way"]
    assert files.entries("way") == ["in", "one"]
    assert dict(files) == {"dir/one": "1\n"}
    assert len(files) == 1
    with pytest.raises(NotSupported, match=r"^dir/one can't be written$"):
        files["dir/one"] = "2"
    with pytest.raises(InvalidArgument, match=r"^dir/one is a file, not a folder$"):
        files.entries("dir/one")


def test_a_dump_is_the_tree_and_nothing_else(tmp_path):
    files, _ = tree()
    top = tmp_path / "new" / "folder"
    assert files.dump(top) == ["dir/one", "short", "way"]
    assert sorted(p.relative_to(top).as_posix() for p in top.rglob("*")) == ["dir", "dir/one", "short", "way"]
    assert (top / "short").read_text() == "1\n"
    assert (top / "way").readlink() == Path("dir")
    with pytest.raises(InputError) as raised:
        files.dump(top)
    assert str(raised.value) == f"{top}: is not empty; the files are dumped to a new or an empty folder"


def test_a_dump_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as raised:
        tree()[0].dump(tmp_path / "file")
    assert str(raised.value) == f"{tmp_path / 'file'}: can't be written: File exists"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_cannot_be_a_files_is_not_there(name, tmp_path):
    files, _ = tree({name: TextFile(lambda: "bad\n")})
    assert files.entries("dir") == ["in", "one"]
    assert f"dir/{name}" not in files
    assert files.dump(tmp_path / "out") == ["dir/one", "short", "way"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@given(name=st.text(max_size=300))
def test_a_dump_stays_inside_whatever_the_name(name, tmp_path_factory):
    top = tmp_path_factory.mktemp("any")
    TextTree(lambda: {name: {name: TextFile(lambda: "x")}}).dump(top / "out")
    found = [path for path in top.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
    assert found == ([top / "out" / name / name] if is_file_name(name) else [])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("00", 0),
        ("010\n", 8),
        ("0x1F", 31),
        ("+7", 7),
        ("18446744073709551615", 2**64 - 1),
        ("5\0junk", 5),
        ("0x" + "0" * 20 + "1zzz", 1),  # the kernel copies 23 bytes: the rest is as if never written
    ],
)
def test_numbers_as_the_kernel_reads_them(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "\n", "-1", " 1", "1 ", "08", "0x", "1\n\n", "++1", "1K", "\u0665", "1\r\n"])
def test_what_is_no_number(text):
    with pytest.raises(InvalidArgument) as raised:
        parse_number(text)
    assert str(raised.value) == f"{text!r} is no number"


def test_a_number_of_65_bits():
    with pytest.raises(OutOfRange, match=r"^18446744073709551616 does not fit into 64 bits$"):
        parse_number("18446744073709551616")
