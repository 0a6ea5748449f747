"""What was asked for in 2010 is answered, and every test that an answer names is there and runs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "requests-of-2010.md"
NUMBERS = range(1, 59)

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(\[[^`]*\])?`")
ITEM = re.compile(r"^(\d+)\. (.*(?:\n(?:   .*)?)*)", re.MULTILINE)


def answers(text):
    """Number -> what is said, for every numbered item."""
    return [(int(number), body) for number, body in ITEM.findall(text)]


def names_in(path):
    """Names of what pytest collects in a file, and does not leave out unless asked: state machines count as well."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if is_test(node):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and node.value.attr == "TestCase":
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def is_test(node):
    if isinstance(node, ast.ClassDef):
        return node.name.startswith("Test")
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not left_out(node)


def left_out(function):
    # skipif stays: such a test runs where everything is installed.
    marks = [ast.unparse(decorator).partition("(")[0] for decorator in function.decorator_list]
    return not {"pytest.mark.slow", "pytest.mark.skip", "pytest.mark.xfail"}.isdisjoint(marks)


def missing(text, root=ROOT):
    """Names in a text that lead to no test."""
    return [
        f"{path}::{name}"
        for path, name, _ in NAMED.findall(text)
        if not (root / path).is_file() or name not in names_in(root / path)
    ]


def test_every_request_is_answered_once():
    assert sorted(number for number, _ in answers(PAGE.read_text(encoding="utf-8"))) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_answer_has_its_test_or_says_what_is_missing(number):
    body = dict(answers(PAGE.read_text(encoding="utf-8")))[number]
    assert NAMED.search(body) or "**Missing:**" in body, body
    assert missing(body) == []


def test_all_other_tests_that_the_page_names_are_there():
    assert missing(PAGE.read_text(encoding="utf-8")) == []


def test_nothing_that_looks_like_a_test_goes_unread():
    text = PAGE.read_text(encoding="utf-8")
    assert len(re.findall(r"\btests/|::test|::Test", NAMED.sub("", text))) == 0


def test_names_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n"
        "def test_plain(): ...\n"
        "@pytest.mark.slow\n"
        "def test_slow(): ...\n"
        "@pytest.mark.skip(reason='never')\n"
        "def test_skipped(): ...\n"
        "@pytest.mark.skipif(False, reason='here')\n"
        "def test_here(): ...\n"
        "class TestAll:\n    def test_inside(self): ...\n"
        "TestMachine = Machine.TestCase\n"
    )
    there = ("test_plain", "test_here", "test_inside", "TestAll", "TestMachine", "test_plain[1-2]")
    names = (*there, "test_slow", "test_skipped", "test_gone")
    text = " ".join(f"`tests/test_it.py::{name}`" for name in names) + " `tests/test_else.py::test_plain`"
    assert missing(text, tmp_path) == [
        "tests/test_it.py::test_slow",
        "tests/test_it.py::test_skipped",
        "tests/test_it.py::test_gone",
        "tests/test_else.py::test_plain",
    ]


def test_items_are_read_with_their_further_lines():
    text = "## Who\n\n1. One.\n   More `tests/a.py::test_b`.\n2. Two.\n\n   A paragraph.\n\n## Else\n\n3. Three.\n"
    assert [(number, body.split()) for number, body in answers(text)] == [
        (1, ["One.", "More", "`tests/a.py::test_b`."]),
        (2, ["Two.", "A", "paragraph."]),
        (3, ["Three."]),
    ]


def test_operations_are_written_in_our_own_language():
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "cma_compat").rglob("*.py")]
    assert [str(page) for page in pages if re.search(r"\w(::|->)\w+\(", page.read_text(encoding="utf-8"))] == []
