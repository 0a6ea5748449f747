"""Measure the structure of the packages: one line a figure, with where it comes from.

    python tests/structure/measure.py [--json]

Everything is read from the source as text, but for the last figures: the methods and attributes of a `PagedDomain`.
Run it before and after a change of structure, and say both in the note.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("swiommu", "cma_compat")
CRUMB = 40  # lines of code, below which a module needs a reason
LOOK, SPLIT = 400, 700  # lines of a module
_OTHERS = {"Protocol", "Generic", "ABC", "NamedTuple", "Enum", "IntEnum", "IntFlag", "Flag", "TypedDict"}
_VERSION = re.compile(r"\d\.\d{1,2}")
_DECLARED = ("swiommu/profile.py", "swiommu/trace/events.py")  # facts, and texts of events, with their releases
SMALL = {  # modules of their own though small, and why
    "swiommu.device.grabber": "the first device to read; public",
    "swiommu.layer.kinds.identity": "one family of layers a module",
    "swiommu.pagetable.formats.mock": "one format a module",
    "swiommu.trace.marks": "what programs write into a trace; public",
}
_ERRORS = {"SwiommuError", "InvalidArgument", "NoMemory", "NoSpace", "AddressInUse"}  # what errors are derived from


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def code_lines(path: Path) -> int:
    """Lines that hold code: no blanks, comments or docstrings."""
    lines = {number for node in ast.walk(tree_of(path)) if isinstance(node, ast.stmt) for number in _span(node)}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(_span(node))
    text = path.read_text().splitlines()
    return sum(1 for number in lines if text[number - 1].strip() and not text[number - 1].lstrip().startswith("#"))


def _span(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def imports(*, runtime: bool = False) -> dict[str, set[str]]:
    """Which module imports which, those for types included unless ``runtime``."""
    known = modules()
    return {name: _imported(tree_of(path), known, runtime=runtime) - {name} for name, path in known.items()}


def _imported(tree: ast.Module, known: dict[str, Path], *, runtime: bool) -> set[str]:
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if runtime and isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in named if name in known} or {node.module}
        pending.extend(ast.iter_child_nodes(node))
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import each other; a package and what is in it count as one another's importers."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str, graph: dict[str, set[str]], out: list[str]) -> None:
        stack = [(name, iter(sorted(graph[name])))]
        seen.add(name)
        while stack:
            following = stack[-1][1]
            step = next((other for other in following if other not in seen), None)
            if step is None:
                out.append(stack.pop()[0])
            else:
                seen.add(step)
                stack.append((step, iter(sorted(graph[step]))))

    for name in sorted(edges):
        if name not in seen:
            visit(name, edges, order)
    back: dict[str, set[str]] = defaultdict(set, {name: set() for name in edges})
    for name, targets in edges.items():
        for target in targets:
            back[target].add(name)
    seen.clear()
    found = []
    for name in reversed(order):
        if name not in seen:
            component: list[str] = []
            visit(name, back, component)
            if len(component) > 1:
                found.append(sorted(component))
    return found


def depths() -> dict[str, int]:
    """How many of our own classes stand above each class of ours; exceptions, Protocols, Generics do not count."""
    bases: dict[str, list[str]] = {}
    for path in modules().values():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [name for base in node.bases if (name := _name(base)) not in _OTHERS]
    plain = {name: above for name, above in bases.items() if not _is_error(name, bases)}

    def depth(name: str) -> int:
        return max((1 + depth(base) for base in plain[name] if base in plain and base != name), default=0)

    return {name: depth(name) for name in plain}


def _name(base: ast.expr) -> str:
    if isinstance(base, ast.Subscript):
        base = base.value
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def _is_error(name: str, bases: dict[str, list[str]]) -> bool:
    return name in {"Exception", "SwiommuError"} or any(
        _is_error(base, bases) for base in bases.get(name, []) if base != name
    )


def version_strings() -> list[str]:
    """Where a kernel version stands as a string, outside docstrings and modules that declare with releases."""
    found = []
    for path in modules().values():
        place = path.relative_to(ROOT).as_posix()
        docs = {
            id(node.value)
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        if place not in _DECLARED:
            found += [
                f"{place}:{node.lineno}"
                for node in ast.walk(tree_of(path))
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
                if _VERSION.fullmatch(node.value)
            ]
    return found


def error_names() -> list[str]:
    """Names of keyword arguments with which errors are raised, those that one class alone declares included."""
    kinds = {
        node.name
        for path in modules().values()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and any(_name(base) in _ERRORS for base in node.bases)
    } | {"SwiommuError"}
    calls = [node for path in modules().values() for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    return sorted({key.arg for call in calls if _name(call.func) in kinds for key in call.keywords if key.arg})


def closed_lists() -> list[str]:
    """Where names that a registry or an enumeration has are listed again, or a registered part is asked by its name.

    Two names of one of them in one literal are a list. The recipes of `swiommu.testing` have kinds of stages of their
    own, by the same words.
    """
    import swiommu.cli.main  # noqa: F401 - whatever declares a policy is imported then
    from swiommu.pagetable import FORMATS
    from swiommu.policy import Policy
    from swiommu.region import ALLOCATORS
    from swiommu.replay import PRESETS
    from swiommu.stackfile import LAYER_KINDS

    def below(kind: type) -> list[type]:
        return [each for child in kind.__subclasses__() for each in (child, *below(child))]

    asked = {*ALLOCATORS, *FORMATS}
    known = [asked, set(LAYER_KINDS), set(PRESETS), *({str(way) for way in kind} - {""} for kind in below(Policy))]
    found = []
    for name, path in modules().items():
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Compare) and _texts([node.left, *node.comparators]) & asked:
                found.append(f"{place}:{node.lineno}")
            parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
            if not name.startswith("swiommu.testing") and any(len(_texts(parts) & each) > 1 for each in known):
                found.append(f"{place}:{node.lineno}")
    return found


def _texts(nodes: list[ast.expr | None]) -> set[str]:
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def crumbs() -> list[str]:
    """Small modules that one sibling alone imports, those with a reason left out."""
    edges, known = imports(), modules()
    importers: dict[str, set[str]] = defaultdict(set)
    for name, targets in edges.items():
        for target in targets:
            importers[target].add(name)
    found = []
    for name, path in known.items():
        package = name.rpartition(".")[0]
        outside = {other for other in importers[name] if other != package}
        small = path.name != "__init__.py" and code_lines(path) < CRUMB
        if small and name not in SMALL and len(outside) == 1 and next(iter(outside)).rpartition(".")[0] == package:
            found.append(f"{name} ({code_lines(path)} lines, {next(iter(outside))})")
    return found


def domain_size() -> tuple[int, int]:
    """Methods that a `PagedDomain` answers to, own or inherited from us, and attributes that it holds."""
    from swiommu.address import BusSpace, PhysSpace
    from swiommu.iommu import PagedDomain
    from swiommu.memory import Frames

    ram = PhysSpace("ram")
    domain = PagedDomain(BusSpace("bus"), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    own = [kind for kind in type(domain).__mro__ if kind.__module__.startswith(PACKAGES)]
    methods = {
        name for kind in own for name, value in vars(kind).items() if callable(value) or isinstance(value, property)
    }
    return len(methods), len(vars(domain))


def measure() -> dict[str, object]:
    """All figures by name."""
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in modules().values()}
    deep, methods_attributes = depths(), domain_size()
    typed, real = circles(imports()), circles(imports(runtime=True))
    return {
        "modules": len(lengths),
        "lines of code": sum(code_lines(path) for path in modules().values()),
        f"modules over {SPLIT} lines": [name for name, length in lengths.items() if length > SPLIT],
        f"modules over {LOOK} lines": [name for name, length in lengths.items() if LOOK < length <= SPLIT],
        "deepest own inheritance": max(deep.values()),
        "classes deeper than 2": sorted(name for name, depth in deep.items() if depth > 2),
        "methods of a PagedDomain": methods_attributes[0],
        "attributes of a PagedDomain": methods_attributes[1],
        "version strings outside the profiles": version_strings(),
        "closed lists of what a registry or an enumeration has": closed_lists(),
        "names of facts of errors": error_names(),
        "import circles, those for types included": [len(circle) for circle in typed],
        "import circles at run time": [len(circle) for circle in real],
        f"modules under {CRUMB} lines of code imported by one sibling only, without a reason": crumbs(),
    }


def main() -> None:
    """Print the figures, one a line, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="everything, with the places")
    figures = measure()
    if parser.parse_args().json:
        print(json.dumps(figures, indent=1))
        return
    for name, figure in figures.items():
        print(f"{name}: {len(figure) if isinstance(figure, list) and 'circles' not in name else figure}")


if __name__ == "__main__":
    main()
