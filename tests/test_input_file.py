"""Reading TOML and JSON: bounded in bytes, tables, depth and time; a sentence with the line for everything wrong."""

import json
import os
import time
import tomllib
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import InputError
from swiommu.input_file import BadValue, ByteCount, HexNumber, InputFile, key, shown
from swiommu.input_file.converter import converter
from swiommu.input_file.places import line_of


@pytest.fixture
def write(tmp_path):
    def write_bytes(data, name="some.toml"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        return str(path)

    return write_bytes


def read(path, **kwargs):
    return InputFile.read(path, what="a file of designs", **kwargs)


def refusal(path, **kwargs):
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        read(path, **kwargs)
    assert time.process_time() - begin < 2
    return str(caught.value)


def test_tables(write):
    assert read(write(b"a = 1\r\n[b]\r\nc = [1, {d = 2}]\r\n")).data == {"a": 1, "b": {"c": [1, {"d": 2}]}}
    assert read(write(b'\xef\xbb\xbf{"a": [1, {"d": null}]}', "some.JSON")).data == {"a": [1, {"d": None}]}


def test_an_empty_file_is_an_empty_table(write):
    assert read(write(b"")).data == {}


def test_the_largest_file_and_one_byte_more(write):
    assert read(write(b"a = 1\n" + b"#" * ((1 << 20) - 6))).data == {"a": 1}
    path = write(b"a = 1\n" + b"#" * ((1 << 20) - 5))
    assert refusal(path) == f"{path}: is larger than 1048576 bytes, not a file of designs"


def test_three_gigabytes_are_not_read(tmp_path):
    path = tmp_path / "sparse.json"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert refusal(str(path), largest=4096) == f"{path}: is larger than 4096 bytes, not a file of designs"


def test_a_file_that_can_not_be_opened(tmp_path):
    assert refusal(f"{tmp_path}/none.toml") == f"{tmp_path}/none.toml: can't be read: No such file or directory"
    assert refusal(str(tmp_path)) == f"{tmp_path}: can't be read: Is a directory"
    assert refusal("a\0b.toml") == "a\0b.toml: can't be read: a path has no zero byte"


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs an endless device")  # noqa: PTH110 -- decorators
def test_an_endless_device_is_refused_after_a_mebibyte():
    assert refusal("/dev/zero") == "/dev/zero: is larger than 1048576 bytes, not a file of designs"


def test_an_empty_device_is_an_empty_table():
    assert read(os.devnull).data == {}


TOO_DEEP = ": nests deeper than 64 levels, not a file of designs"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"a = 1\nb = '\xff'", ":2: is not UTF-8 text"),
        (b"a = 1\nb = \n", ":2: is not TOML: Invalid value (column 5)"),
        (b"a = 1\na = 2\n", ":2: is not TOML: Cannot overwrite a value (column 6)"),
        (b"\0", ":1: is not TOML: Invalid statement (column 1)"),
        (b"[a", ": is not TOML: Expected ']' at the end of a table declaration (at end of document)"),
        (b"b = 1\na = " + b"9" * 5000, ":2: holds a number of too many digits"),
        (b"a = " + b"[" * 100_000, TOO_DEEP),
        (b"a = " + b"{a=" * 100_000, TOO_DEEP),
        (b"a = " + b"[" * 65 + b"]" * 65, TOO_DEEP),
        (b"a=[\n" + b"{a.a.a.a.a.a.a.a.a.a.a=[\n" * 10 + b"1" + b"]}" * 10 + b"]", TOO_DEEP),
        (b"\na" + b".a" * 500_000 + b" = 1\n", ":2: more than 64 dots in a line: not a file of designs"),
        (b"[a" + b".a" * 500_000 + b"]\n", ":1: more than 64 dots in a line: not a file of designs"),
        (b"a = [" + b"{}," * 16384 + b"]", ": holds more than 16384 tables, not a file of designs"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_refused_toml(write, data, sentence):
    path = write(data)
    assert refusal(path) == path + sentence


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("", ":1: is not JSON: Expecting value (column 1)"),
        ('{"a": 1,\n "b": }', ":2: is not JSON: Expecting value (column 7)"),
        ('{"a": 1}\n{"b": 1}', ":2: is not JSON: Extra data (column 1)"),
        ("[1, 2]", ": is a list, not an object with keys"),
        ('{"a": "NaN",\n"b": NaN}', ":2: is not JSON: NaN is no number"),
        ('{"a":\n[1, -Infinity]}', ":2: is not JSON: -Infinity is no number"),
        ('{"a": 1,\n"b": {"a": 1,\n"c": [{}],\n"a": 2}}', ":4: the key 'a' stands twice in one object"),
        ('{"a": 1, "\\u0061": 1}', ":1: the key 'a' stands twice in one object"),
        ('{"a": 1,\n"b": ' + "9" * 5000 + "}", ":2: holds a number of too many digits"),
        ('{"a": "\\ud800"}', ": '\\ud800' holds half of a surrogate pair, which is no character"),
        ('{"\\udfff": 1}', ": '\\udfff' holds half of a surrogate pair, which is no character"),
        ("[" * 100_000, TOO_DEEP),
        ('{"a":' * 65 + "1" + "}" * 65, TOO_DEEP),
    ],
)
def test_refused_json(write, data, sentence):
    path = write(data, "some.json")
    assert refusal(path) == path + sentence


def test_half_of_a_pair_that_is_no_escape(write):
    path = write('{"a": "\ud800"}', "some.json")
    assert refusal(path) == f"{path}:1: is not UTF-8 text"
    assert read(write('{"a": "\\ud83d\\ude00"}', "some.json")).data == {"a": "\U0001f600"}


def test_the_deepest_nest_that_is_read(write):
    assert list(read(write(b"a = " + b"[" * 63 + b"]" * 63)).data) == ["a"]


# -- objects


@attrs.frozen
class Part:
    at: ByteCount = key("Where it is.", unit="bytes", least=0, most=(1 << 64) - 1)
    prot: str = key("Who may.", "rw", choices=("r", "rw"))


@attrs.frozen
class Whole:
    name: str = key("Its name.", printable=True)
    count: int = key("How many.", 1, least=1)
    ratio: float = key("How much.", 0.5, least=0.0, most=1.0)
    pfn: HexNumber | None = key("Its page.", None)
    on: bool = key("Whether.", False)
    parts: list[Part] = key("What it is of.", [], longest=3)
    named: dict[str, Part] = key("What has names.", {})
    words: list[str] = key("Texts.", [])
    memory: Any = key("A fact.", None, is_read=False)

    def __attrs_post_init__(self):
        if self.name == "bad":
            raise BadValue("is bad", key="name")


def test_an_object_of_a_file(write):
    text = 'name = "x"\npfn = "0x1f"\nratio = 1\nparts = [{at = "64 MiB"}, {at = 5, prot = "r"}]\nnamed.n = {at = 1}\n'
    parts = [Part(64 << 20), Part(5, "r")]
    assert read(write(text)).structure(Whole) == Whole("x", ratio=1, pfn=31, parts=parts, named={"n": Part(1)})
    assert read(write('{"name": "x", "pfn": null}', "some.json")).structure(Whole) == Whole("x")


NOT_BYTES = 'not a number of bytes, or a text such as "64 MiB"'
WRONG = {
    "count = 2": ": name is missing",
    "name = 'x'\ncuont = 2": ":2: has no key 'cuont'; did you mean 'count'?",
    "naem = 'x'": ":1: has no key 'naem'; did you mean 'name'?",
    "name = 'bad'": ":1: name is bad",
    "name = ' '": ":1: name is ' ', not a text that can be printed",
    "name = 'a\u202eb'": ":1: name is 'a\\u202eb', not a text that can be printed",
    "name = 1979-05-27": ":1: name is datetime.date(1979, 5, 27), not a text",
    "name = 'x'\ncount = 0": ":2: count is 0, not a whole number from 1 on",
    "name = 'x'\ncount = true": ":2: count is True, not a whole number",
    "name = 'x'\ncount = 1.0": ":2: count is 1.0, not a whole number",
    "name = 'x'\ncount = '1'": ":2: count is '1', not a whole number",
    "name = 'x'\nratio = nan": ":2: ratio is nan, not a number from 0 to 1",
    "name = 'x'\nratio = inf": ":2: ratio is inf, not a number from 0 to 1",
    "name = 'x'\nratio = 2": ":2: ratio is 2, not a number from 0 to 1",
    "name = 'x'\nratio = 'x'": ":2: ratio is 'x', not a number",
    "name = 'x'\npfn = 'b9a00'": ":2: pfn is 'b9a00', not a whole number, or a text such as \"0xb9a00\"",
    "name = 'x'\non = 1": ":2: on is 1, not true or false",
    "name = 'x'\nparts = 'abc'": ":2: parts is 'abc', not a list of tables",
    "name = 'x'\nparts = [\n{at = 1},\n3]": ":4: parts[1] is 3, not a table",
    "name = 'x'\n[[parts]]\nat = 1\n[[parts]]\nprot = 'r'": ":4: parts[1].at is missing",
    "name = 'x'\n[[parts]]\nat = 1\n[[parts]]\nat = -1": (
        ":5: parts[1].at is -1, not a number of bytes from 0 to 2**64 - 1"
    ),
    "name = 'x'\n[[parts]]\nat = '4 parsecs'": f":3: parts[0].at is '4 parsecs', {NOT_BYTES}",
    "name = 'x'\n[[parts]]\nat = 1\nprot = 'rx'": ":4: parts[0].prot is 'rx'; did you mean 'r'?",
    "name = 'x'\n[[parts]]\nat = 1\na = 1": ":4: parts[0] has no key 'a'; did you mean 'at'?",
    "name = 'x'\nparts = [{at=1}, {at=1}, {at=1}, {at=1}]": ":2: parts has 4 items, more than 3",
    "name = 'x'\n[named.n]\nat = []": f":3: named.n.at is a list, {NOT_BYTES}",
    "name = 'x'\n[named.'n m']\nat = []": f":3: named.'n m'.at is a list, {NOT_BYTES}",
    "name = 'x'\nnamed = 3": ":2: named is 3, not a table",
    "name = 'x'\nwords = ['a', 3]": ":2: words has 3 as item 1, not a text",
    "name = 'x'\nwords = 'abc'": ":2: words is 'abc', not a list of texts",
    f"name = 'x'\ncount = '{'x' * 10000}'": f":2: count is '{'x' * 56}..., not a whole number",
    f"name = 'x'\ncount = 0x{'f' * 10000}\nratio='x'": ":3: ratio is 'x', not a number",
    f"name = 'x'\n[[parts]]\nat = 0x{'f' * 10000}": (
        f":3: parts[0].at is 0x{'f' * 55}..., not a number of bytes from 0 to 2**64 - 1"
    ),
    f"name = 'x'\n{'y' * 10000} = 1": (
        f":2: has no key '{'y' * 56}...; there are name, count, ratio, pfn, on, parts, named, words, memory"
    ),
    "name = 'x'\n'\\u001b' = 1".replace("'\\", '"\\').replace("b'", 'b"'): (
        ":2: has no key '\\x1b'; there are name, count, ratio, pfn, on, parts, named, words, memory"
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_values(write, text):
    path = write(text)
    with pytest.raises(InputError) as caught:
        read(path).structure(Whole)
    assert str(caught.value) == path + WRONG[text]


def test_thousands_of_mistakes_are_one_sentence_soon(write):
    path = write("name = 'x'\nparts = [\n" + "{a=1},\n" * 16000 + "]")
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        read(path).structure(Whole)
    assert str(caught.value) == f"{path}:3: parts[0] has no key 'a'; did you mean 'at'?"
    assert time.process_time() - begin < 5


def test_keys_that_are_not_known_may_pass_unless_they_look_like_one_that_is(write):
    keep = {"name": "x", "hz": 250, "named": {"n": {"at": 1, "why": "?"}}, "memory_": "a fact", "memories": 2}
    assert read(write(json.dumps(keep), "x.json")).structure(Whole, keep_unknown=True).name == "x"
    for wrong, sentence in (
        ({"conut": 1}, ":1: has no key 'conut'; did you mean 'count'?"),
        ({"Count": 1}, ":1: has no key 'Count'; did you mean 'count'?"),
        ({"named": {"n": {"at": 1, "prott": 2}}}, ":1: named.n has no key 'prott'; did you mean 'prot'?"),
    ):
        path = write(json.dumps({"name": "x"} | wrong), "x.json")
        with pytest.raises(InputError) as caught:
            read(path).structure(Whole, keep_unknown=True)
        assert str(caught.value) == path + sentence


def test_values_in_sentences():
    assert shown("x" * 100) == f"'{'x' * 56}..."
    assert [shown(value) for value in ({}, (), None, 1.5)] == ["a table", "a list", "None", "1.5"]


# -- lines: a text is written value by value, with the line of each

NAMES = st.text(st.sampled_from("ab.-[]{}\"'#=:\\ \u00e9"), min_size=1, max_size=3)
VALUES = st.recursive(
    st.integers(0, 9) | st.text("ab[]{},=:.#\"'\\\n", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


class Writer:
    """Writes values as JSON or as inline TOML, and remembers the line of each key and item."""

    def __init__(self, gap, is_json):
        self.text, self.lines, self.gap, self.is_json = "", {}, gap, is_json

    def line(self, where):
        self.lines[where] = self.text.count("\n") + 1

    def scalar(self, value):
        self.text += json.dumps(value, ensure_ascii=False)

    def value(self, value, where, gap):
        if isinstance(value, list):
            self.text += "["
            for number, each in enumerate(value):
                self.text += gap
                self.line((*where, number))
                self.value(each, (*where, number), gap)
                self.text += "," if not self.is_json or number < len(value) - 1 else ""
            self.text += gap + "]"
        elif isinstance(value, dict):
            gap = gap if self.is_json else " "
            self.text += "{"
            for number, (name, each) in enumerate(value.items()):
                self.text += gap
                self.line((*where, name))
                self.scalar(name)
                self.text += ": " if self.is_json else " = "
                self.value(each, (*where, name), gap)
                self.text += "," if number < len(value) - 1 else ""
            self.text += "}"
        else:
            self.scalar(value)


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.sampled_from([" ", "\n", "\n\n  "]))
def test_the_line_of_every_value_of_a_json_text(data, gap):
    writer = Writer(gap, is_json=True)
    writer.value(data, (), gap)
    assert json.loads(writer.text) == data
    assert {where: line_of(writer.text, where, is_json=True) for where in writer.lines} == writer.lines


@given(
    st.dictionaries(NAMES, VALUES, max_size=2),
    st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=2), max_size=2),
    st.lists(st.dictionaries(NAMES, VALUES, max_size=2), max_size=3),
    st.sampled_from([" ", "\n", "# [x]\n\n  "]),
)
def test_the_line_of_every_value_of_a_toml_text(top, tables, rows, gap):
    data = {f"v{name}": value for name, value in top.items()}
    data |= {f"t{name}": value for name, value in tables.items()} | ({"rows": {"of": rows}} if rows else {})
    writer = Writer(gap, is_json=False)

    def table(values, where):
        for name, value in values.items():
            writer.line((*where, name))
            writer.scalar(name)
            writer.text += " = "
            writer.value(value, (*where, name), gap)
            writer.text += " # end\n"

    table({name: value for name, value in data.items() if name[0] == "v"}, ())
    for name, value in data.items():
        if name[0] == "t":
            writer.line((name,))
            writer.text += f"[{json.dumps(name, ensure_ascii=False)}]\n"
            table(value, (name,))
    for number, row in enumerate(rows):
        writer.line(("rows", "of", number))
        writer.text += "[[rows.of]]\n"
        table(row, ("rows", "of", number))
    assert tomllib.loads(writer.text) == data
    assert {where: line_of(writer.text, where, is_json=False) for where in writer.lines} == writer.lines


def test_lines_of_dotted_keys_and_long_texts():
    text = "a.b.c = 1\n'q.r' = '''\nx = 1\n'''\nx = \"\"\"\n[y]\\\"\"\"\"\n[y]\nz = 1979-05-27T07:32:00Z\n"
    assert [line_of(text, where, is_json=False) for where in (("a", "b", "c"), ("q.r",), ("x",), ("y", "z"))] == [
        1,
        2,
        5,
        8,
    ]
    assert line_of(text, ("y", "missing"), is_json=False) == 7
    assert line_of(text, ("missing",), is_json=False) is None


def test_a_converter_is_made_once_for_the_same_hooks():
    """cattrs compiles a function for each class: that took longer than reading most files."""
    hooks = {ByteCount: lambda value, _structure: value}
    first = converter(hooks, keep_unknown=False)
    assert converter(dict(hooks), keep_unknown=False) is first
    assert converter(hooks, keep_unknown=True) is not first
    assert converter({}, keep_unknown=False) is not first
