"""The tables of keys in the reference are those of the declarations. To rewrite them:

    python tests/test_key_tables.py && git diff docs/reference

A table is between ``<!-- keys: MODULE:CLASS -->`` and ``<!-- end of keys -->``; with `` own`` behind the class it
leaves out what that inherits.
"""

import enum
import importlib
import re
from pathlib import Path

import attrs
import pytest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
PAGES = ("commands.md", "sidecar.md", "stack_file.md")
TABLE = re.compile(
    r"(<!-- keys: (?P<module>[\w.]+):(?P<cls>\w+)(?P<own> own)? -->\n\n).*?(\n\n<!-- end of keys -->)", re.DOTALL
)


def default(field):
    if field.default is attrs.NOTHING:
        return "needed"
    value = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, enum.Flag):
        return f'`"{str(value.name).lower()}"`'
    if isinstance(value, bool):
        return str(value).lower()
    if "bytes" in field.metadata["values"] and value >= 1 << 20:
        return f"{value >> 20} MiB"
    return f'`"{value}"`' if isinstance(value, str) else str(value)


def values(field):
    told = field.metadata["values"] if field.metadata["is_read"] else "not read"
    return told if isinstance(told, str) else ", ".join(f'`"{word}"`' for word in told)


def table(cls, *, own):
    rows = ["| key | default | values | meaning |", "|---|---|---|---|"]
    for field in attrs.fields(cls):
        if own and field.inherited:
            continue
        cells = (f"`{field.name}`", default(field), values(field), field.metadata["sentence"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return re.sub(" +", " ", "\n".join(rows))


def rewritten(text):
    def made(found):
        cls = getattr(importlib.import_module(found["module"]), found["cls"])
        return found[1] + table(cls, own=bool(found["own"])) + found[5]

    return TABLE.sub(made, text)


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_keys_are_those_of_the_declarations(page):
    text = (REFERENCE / page).read_text(encoding="utf-8")
    assert TABLE.search(text)
    assert text == rewritten(text)


if __name__ == "__main__":
    for each in PAGES:
        path = REFERENCE / each
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {each}")
