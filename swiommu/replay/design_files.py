"""Designs from TOML: ``[[design]]`` tables, each a preset with some knobs turned, or one of its own.

[[design]]
name = "my-carve-out"
based_on = "carveout-best-fit"     # optional; its knobs are the defaults
allocator = "bitmap"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import attrs

from swiommu.input_file import BadValue, InputFile, key, shown
from swiommu.replay.designs import AS_RECORDED, PRESETS, Design
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DesignKeys", "read_designs"]


@attrs.frozen
class DesignKeys(Design):
    """The keys of a ``[[design]]``: those of a `Design`, and the preset whose knobs are the defaults."""

    based_on: str = key("The preset that the other keys change; without it the defaults here count.", "")


_FromPreset: TypeAlias = Annotated[Design, "from a preset"]


@attrs.frozen
class _Designs:
    design: list[_FromPreset] = key("The designs.")


def read_designs(path: str) -> list[Design]:
    r"""The designs of a TOML file, in its order; `InputError` in one sentence with file and line for anything wrong.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write('[[design]]\nname = "mine"\nbased_on = "cma-bitmap"\nallocator = "best_fit"\n')
    ...     _ = file.flush()
    ...     read_designs(file.name)[0].allocator
    'best_fit'
    """
    file = InputFile.read(path, what="a file of designs")
    if not file.data.get("design", True):
        raise file.error(("design",), "has no [[design]] table")
    designs = file.structure(_Designs, {_FromPreset: _design}).design
    taken = {AS_RECORDED, *PRESETS}
    for number, design in enumerate(designs):
        if not design.name or design.name in taken:
            reason = "is empty" if not design.name else f"is {shown(design.name)}, a name that is taken"
            raise file.error(("design", number, "name"), reason)
        taken.add(design.name)
    return designs


def _design(table: Any, structure: Callable[[Any, Any], Any]) -> Design:
    start: dict[str, Any] = {"summary": "from a file"}
    if isinstance(table, dict) and "based_on" in table:
        name = table["based_on"]
        if not isinstance(name, str) or name not in PRESETS:
            raise BadValue(f"is {shown(name)}, not a preset; {did_you_mean(str(name), PRESETS)}", key="based_on")
        start = attrs.asdict(PRESETS[name]) | {"summary": f"{name} with other knobs"}
    keys = structure(start | table if isinstance(table, dict) else table, DesignKeys)
    return Design(**{field.name: getattr(keys, field.name) for field in attrs.fields(Design)})
