"""Designs from TOML: ``[[design]]`` tables, each a preset with some knobs turned, or one of its own.

[[design]]
name = "my-carve-out"
based_on = "carveout-best-fit"     # optional; its knobs are the defaults
allocator = "bitmap"
"""

from __future__ import annotations

from typing import Any

import attrs

from swiommu.errors import InputError
from swiommu.replay.designs import AS_RECORDED, PRESETS, Design, find_design
from swiommu.toml_file import did_you_mean, read_toml

__all__ = ["read_designs"]


def read_designs(path: str) -> list[Design]:
    r"""The designs of a TOML file, in its order; `InputError` in one sentence with the file for anything wrong.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write('[[design]]\nname = "mine"\nbased_on = "cma-bitmap"\nallocator = "best_fit"\n')
    ...     _ = file.flush()
    ...     read_designs(file.name)[0].allocator
    'best_fit'
    """
    tables = read_toml(path, what="a file of designs").get("design")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError("holds no [[design]] table", path=path)
    designs = [_design(table, path) for table in tables]
    for design in designs:
        if design.name in PRESETS or design.name == AS_RECORDED or [d.name for d in designs].count(design.name) > 1:
            raise InputError(f"the name {design.name!r} is taken; give the design another", path=path)
    return designs


def _design(table: dict[str, Any], path: str) -> Design:
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise InputError("a [[design]] needs a name", path=path)
    fields = {field.name: field for field in attrs.fields(Design)}
    for key in table:
        if key not in fields and key != "based_on":
            raise InputError(f"design {name!r} has no knob {key!r}; {did_you_mean(key, fields)}", path=path)
    values = {key: value for key, value in table.items() if key != "based_on"}
    try:
        if "based_on" in table:
            base = find_design(str(table["based_on"]))
            return attrs.evolve(base, **{"summary": f"{base.name} with other knobs", **values})
        return Design(**{"summary": "from a file", **values})
    except InputError as error:
        raise InputError(str(error), path=path) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"design {name!r}: {_wrong_value(table, fields)}", path=path) from error


def _wrong_value(table: dict[str, Any], fields: dict[str, Any]) -> str:
    """Which knob has a value it can't have, and what it may be."""
    for key, value in table.items():
        declared = fields[key].metadata if key in fields else {}
        choices = declared.get("choices", ())
        if choices and value not in choices:
            return f"{key} is {value!r}, not one of {', '.join(map(repr, choices))}"
        if declared and not choices and (not isinstance(value, int) or isinstance(value, bool)):
            return f"{key} is {value!r}, not a number of {declared['unit'] or 'units'}"
        if key in {"name", "summary"} and not isinstance(value, str):
            return f"{key} is {value!r}, not a text"
    return "a value is out of range"
