"""Reading a person's TOML file: bounded in bytes, depth and time; a sentence for everything that is wrong."""

import os

import pytest

from swiommu.errors import InputError
from swiommu.toml_file import did_you_mean, read_toml


@pytest.fixture
def write(tmp_path):
    def write_bytes(data):
        path = tmp_path / "some.toml"
        path.write_bytes(data)
        return str(path)

    return write_bytes


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_toml(path, what="a file of designs")
    return str(caught.value)


def test_tables(write):
    assert read_toml(write(b"a = 1\r\n[b]\r\nc = [1, {d = 2}]\r\n"), what="x") == {"a": 1, "b": {"c": [1, {"d": 2}]}}


def test_an_empty_file_is_an_empty_table(write):
    assert read_toml(write(b""), what="x") == {}


def test_the_largest_file_and_one_byte_more(write):
    assert read_toml(write(b"a = 1\n" + b"#" * ((1 << 20) - 6)), what="x") == {"a": 1}
    path = write(b"a = 1\n" + b"#" * ((1 << 20) - 5))
    assert refusal(path) == f"{path}: is larger than 1048576 bytes, not a file of designs"


def test_a_file_that_can_not_be_opened(tmp_path):
    assert refusal(f"{tmp_path}/none.toml") == f"{tmp_path}/none.toml: can't be read: No such file or directory"
    assert refusal(str(tmp_path)) == f"{tmp_path}: can't be read: Is a directory"


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs an endless device")  # noqa: PTH110 -- decorators
def test_an_endless_device_is_refused_after_a_mebibyte():
    assert refusal("/dev/zero") == "/dev/zero: is larger than 1048576 bytes, not a file of designs"


def test_an_empty_device_is_an_empty_table():
    assert read_toml(os.devnull, what="x") == {}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"a = '\xff'", ": is not UTF-8 text"),
        (b"a = 1\nb = \n", ": is not TOML: Invalid value (at line 2, column 5)"),
        (b"a = 1\na = 2\n", ": is not TOML: Cannot overwrite a value (at line 2, column 6)"),
        (b"\0", ": is not TOML: Invalid statement (at line 1, column 1)"),
        (b"a = " + b"9" * 5000, ": holds a number of too many digits"),
        (b"a = " + b"[" * 100_000, ": nests deeper than 64 levels, not a file of designs"),
        (b"a = " + b"{a=" * 100_000, ": nests deeper than 64 levels, not a file of designs"),
        (b"a = " + b"[" * 65 + b"]" * 65, ": nests deeper than 64 levels, not a file of designs"),
        (b"\na" + b".a" * 500_000 + b" = 1\n", ":2: more than 64 dots in a line: not a file of designs"),
        (b"[a" + b".a" * 500_000 + b"]\n", ":1: more than 64 dots in a line: not a file of designs"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_refusals(write, data, sentence):
    path = write(data)
    assert refusal(path) == path + sentence


def test_the_deepest_nest_that_is_read(write):
    assert list(read_toml(write(b"a = " + b"[" * 63 + b"]" * 63), what="x")) == ["a"]


def test_depth_by_dots_in_tables_that_span_lines(write):
    data = b"a=[\n" + b"{a.a.a.a.a.a.a.a.a.a.a=[\n" * 10 + b"1" + b"]}" * 10 + b"]"
    path = write(data)
    assert refusal(path) == f"{path}: nests deeper than 64 levels, not a file of designs"


def test_a_near_name_and_none():
    assert did_you_mean("flsuh", ["flush", "pool"]) == "did you mean 'flush'?"
    assert did_you_mean("zzz", iter(["flush", "pool"])) == "there are flush, pool"
