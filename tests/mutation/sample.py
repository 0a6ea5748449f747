"""A random sample of mutants of the product: which of them does a test notice?

    python tests/mutation/sample.py [--count 100] [--seed 0] [--jobs 1] [--only swiommu/dma] [--log FILE] [--again LOG]

A mutant is one small change of one module: another operator, comparison or constant, a condition turned round, an
answer of None, a call that is dropped. It is made in a copy of the tree and tried on the tests of its module, then on
those of its package, then on those that import its package. One JSON line for each says what was changed and what came
of it: ``killed`` by which test, ``timeout``, or ``survived``. A mutant of the log is not tried again, so a run that was
stopped goes on; ``--again`` tries those that survived in another log, once there are tests for them. The same seed
chooses the same mutants of the same tree. A short form runs with the tests (tests/mutation/test_sample.py).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import queue
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGES = ("swiommu", "cma_compat")
# A module that pytest imports by its path before its package did would be there twice.
OPTIONS = ("-n0", *(word for name in ("swiommu.answers", "swiommu.testing", "cma_compat") for word in ("-p", name)))
COPIED = (*PACKAGES, "tests", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
PATIENCE = 60  # seconds of CPU that the tests of one module may take
PATIENCE_OF_ALL = 300  # those of a package, or of its neighbours

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


class Mutant(NamedTuple):
    """One change: the ``old`` text of ``path`` from ``start`` to ``stop`` (bytes) becomes ``new``."""

    path: str
    line: int
    kind: str
    start: int
    stop: int
    old: str
    new: str

    def of(self, source: str) -> str:
        data = source.encode()
        return (data[: self.start] + self.new.encode() + data[self.stop :]).decode()

    def diff(self, source: str) -> list[str]:
        """The lines that change, with - and +."""
        lines = difflib.unified_diff(source.splitlines(), self.of(source).splitlines(), lineterm="", n=0)
        return [line for line in list(lines)[2:] if not line.startswith("@@")]


# -- which mutants there are ------------------------------------------------------------------------------------------


def mutants_of(path: str, source: str) -> list[Mutant]:
    """All of one module; annotations, texts and what only a type checker runs are left alone."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for kind, node, changed in _changes(ast.parse(source)):
        start, stop = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        old = source.encode()[start:stop].decode()
        new = ast.unparse(changed)
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant):
            new = f"({new})"  # its place may bind more strongly
        found.append(Mutant(path, node.lineno, kind, start, stop, old, new))
    return sorted(found, key=lambda each: (each.start, each.stop, each.new))


def _changes(tree: ast.AST) -> Iterator[tuple[str, Any, ast.AST]]:
    """(kind, the node to replace, what replaces it)."""
    for node in _run_nodes(tree):
        if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in OPERATORS:
            yield "operator", node, _with(node, op=OPERATORS[type(node.op)]())
        elif isinstance(node, ast.Compare):
            ops = [COMPARISONS[type(op)]() for op in node.ops[:1]] + node.ops[1:]
            yield "comparison", node, _with(node, ops=ops)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield "constant", node, ast.Constant(value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield "condition", node, node.operand
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(
            node.test, (ast.Compare, ast.Constant, ast.UnaryOp)
        ):
            yield "condition", node.test, ast.UnaryOp(ast.Not(), node.test)
        elif isinstance(node, ast.Return) and not (node.value is None or _is_none(node.value)):
            yield "returned value", node, ast.Return(ast.Constant(None))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield "dropped call", node, ast.Pass()


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What is run: no annotations, no f-strings, no types joined by ``|``, nothing under TYPE_CHECKING."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and (_is_none(node.right) or _is_none(node.left)):
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "type_params"} or (name == "msg" and isinstance(node, ast.Assert)):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from _run_nodes(each)


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    return type(node)(**(dict(ast.iter_fields(node)) | fields))


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def sample(root: Path, count: int, seed: int, only: str = "") -> list[Mutant]:
    """``count`` mutants, package after package by turns, so that a small one is not forgotten."""
    draw = random.Random(seed)
    by_package: dict[str, list[Mutant]] = {}
    for name in PACKAGES:
        for path in sorted((root / name).rglob("*.py")):
            relative = path.relative_to(root).as_posix()
            if path.name not in {"__init__.py", "__main__.py"} and relative.startswith(only):
                found = mutants_of(relative, path.read_text(encoding="utf-8"))
                by_package.setdefault("/".join(relative.split("/")[:2]), []).extend(found)
    chosen: list[Mutant] = []
    while len(chosen) < count and by_package:
        for package in draw.sample(sorted(by_package), len(by_package)):
            rest = by_package[package]
            if rest and len(chosen) < count:
                chosen.append(rest.pop(draw.randrange(len(rest))))
            if not rest:
                del by_package[package]
    return chosen


# -- which tests are asked --------------------------------------------------------------------------------------------


def stages(root: Path, path: str) -> list[list[str]]:
    """The tests of a module by its name, and its examples; the others of its package; its neighbours.

    Neighbours import the package, or run commands. Those that say more of the module's names come first.
    """
    module, folder = Path(path), _folder(root, path)
    dotted = path.removesuffix(".py").replace("/", ".")
    package = re.compile(rf"^(?:from|import) {re.escape('.'.join(dotted.split('.')[:2]))}\b|\(swiommu\b", re.MULTILINE)
    names = re.findall(r"^(?:class|def) ([a-zA-Z]\w*)", (root / path).read_text(encoding="utf-8"), re.MULTILINE)
    ranked: dict[int, list[tuple[int, int, str]]] = {0: [], 1: [], 2: []}
    for test in (root / "tests").rglob("test_*.py"):
        text, inside = test.read_text(encoding="utf-8"), folder in test.parents and folder != root / "tests"
        mirror = test.parent == folder and test.stem.startswith(f"test_{module.stem}")
        if {"mutation", "test_house.py"} & set(test.parts) or not (inside or mirror or package.search(text)):
            continue
        said = sum(re.search(rf"\b{name}\b", text) is not None for name in names)
        stage = 0 if mirror or f"{dotted} " in text else 1 if inside else 2
        ranked[stage].append((-said, len(text), test.relative_to(root).as_posix()))
    first, *others = ([name for _, _, name in sorted(ranked[stage])] for stage in sorted(ranked))
    return [stage for stage in ([path, *first], *others) if stage]


def _folder(root: Path, path: str) -> Path:
    """The test folder of a module's package, or of the next package above that has one."""
    parts = Path(path).parent.parts
    parts = parts[1:] if parts[0] == "swiommu" else parts
    while parts and not (root / "tests").joinpath(*parts).is_dir():
        parts = parts[:-1]
    return (root / "tests").joinpath(*parts)


# -- trying -----------------------------------------------------------------------------------------------------------


class Tree:
    """A copy of the tree in which one module at a time is another."""

    def __init__(self, root: Path, folder: Path, options: tuple[str, ...] = OPTIONS) -> None:
        self.root, self.options = folder, options
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
            elif (root / name).exists():
                shutil.copy(root / name, folder / name)

    def tested(self, tests: list[str], patience: int) -> tuple[str, str]:
        """``passed``, ``failed`` with the first test that did, or ``timeout``."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "--tb=no",
            *self.options,
            *tests,
        ]
        environment = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
        environment |= {"PYTHONPATH": str(self.root), "TMPDIR": str(self.root), "SWIOMMU_PROFILE": "mutation"}
        limit = partial(resource.setrlimit, resource.RLIMIT_CPU, (patience, patience))
        options: dict[str, Any] = {"capture_output": True, "text": True, "preexec_fn": limit}
        try:  # what waits for nothing takes no CPU
            run = subprocess.run(command, cwd=self.root, env=environment, check=False, timeout=20 * patience, **options)
        except subprocess.TimeoutExpired:
            return "timeout", ""
        finally:
            for left in self.root.glob("pytest-of-*"):
                shutil.rmtree(left, ignore_errors=True)
        if run.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
            return "timeout", ""
        if run.returncode in {0, 5}:  # 5: there were no tests
            return "passed", ""
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
        return "failed", failed[1] if failed else (run.stdout[-200:] + run.stderr[-200:]).strip()

    def tried(self, mutant: Mutant) -> dict[str, Any]:
        """What came of a mutant; the module is afterwards what it was."""
        path, begin = self.root / mutant.path, time.monotonic()
        source = path.read_text(encoding="utf-8")
        result, by, tests = "survived", "", [""]
        try:
            self.write(path, mutant.of(source))
            for tests in stages(self.root, mutant.path):
                patience = PATIENCE if tests[0] == mutant.path else PATIENCE_OF_ALL
                outcome, by = self.tested(tests, patience)
                if outcome != "passed":
                    result = "timeout" if outcome == "timeout" else "killed"
                    break
        finally:
            self.write(path, source)
        file = by.partition("::")[0]
        if result == "killed" and not self.passes((file,) if (self.root / file).is_file() else tuple(tests)):
            result, by = "invalid", f"fails without the change too: {by}"
        where = {"path": mutant.path, "line": mutant.line, "kind": mutant.kind, "diff": mutant.diff(source)}
        return where | {"result": result, "by": by, "seconds": round(time.monotonic() - begin, 1)}

    @staticmethod
    def write(path: Path, source: str) -> None:
        """Without what was compiled: a file of the same size in the same second would be taken for the same."""
        path.write_text(source, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()

    @cache  # noqa: B019 - there is a handful of trees
    def passes(self, files: tuple[str, ...]) -> bool:
        """Whether the tests of these files hold without any change."""
        return self.tested(list(files), PATIENCE_OF_ALL)[0] == "passed"


def run(
    chosen: list[Mutant], log: Path, jobs: int, root: Path = ROOT, options: tuple[str, ...] = OPTIONS
) -> Counter[str]:
    """Try them all, a line of ``log`` for each; how many came to what, those that the log had already included."""
    before = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    known = {key(each) for each in before}
    counts = Counter(each["result"] for each in before)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        trees: queue.Queue[Tree] = queue.Queue()
        for job in range(jobs):
            trees.put(Tree(root, Path(folder, str(job)), options))

        def tried(mutant: Mutant) -> dict[str, Any]:
            tree = trees.get()
            try:
                return tree.tried(mutant)
            finally:
                trees.put(tree)

        todo = [each for each in chosen if key(shown(each, root)) not in known]
        with log.open("a", encoding="utf-8") as file:
            for answer in pool.map(tried, todo):
                counts[answer["result"]] += 1
                file.write(json.dumps(answer) + "\n")
                file.flush()
    return counts


def shown(mutant: Mutant, root: Path) -> dict[str, Any]:
    return {"path": mutant.path, "diff": mutant.diff((root / mutant.path).read_text(encoding="utf-8"))}


def key(answer: dict[str, Any]) -> tuple[str, ...]:
    return answer["path"], *answer["diff"]


def survivors(root: Path, log: Path) -> list[Mutant]:
    """Those that survived in ``log``, as far as their lines still stand in the tree."""
    left = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    wanted = {key(each) for each in left if each["result"] == "survived"}
    paths = sorted({path for path, *_ in wanted if (root / path).exists()})
    every = (each for path in paths for each in mutants_of(path, (root / path).read_text(encoding="utf-8")))
    return list({key(shown(each, root)): each for each in every if key(shown(each, root)) in wanted}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", metavar="PATH", help="modules whose path begins like this")
    parser.add_argument("--log", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--again", type=Path, metavar="LOG", help="the survivors of this log instead of a sample")
    options = parser.parse_args()
    if options.again:
        chosen = survivors(ROOT, options.again)
    else:
        chosen = sample(ROOT, options.count, options.seed, options.only)
    counts = run(chosen, options.log, options.jobs)
    noticed, all_ = counts["killed"] + counts["timeout"], counts.total()
    print(", ".join(f"{number} {result}" for result, number in sorted(counts.items())))
    print(f"{noticed} of {all_} were noticed, {100 * noticed / max(all_, 1):.1f} %")


if __name__ == "__main__":
    main()
