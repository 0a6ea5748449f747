"""A snapshot of behaviour: what compare, verify and explain answer for every recording of a folder, as files of JSON.

    python tests/snapshot/snapshot.py write FOLDER OUT [--quick] [--jobs N] [--only GLOB]
    python tests/snapshot/snapshot.py diff OLD NEW [--expect FILE]
    python tests/snapshot/snapshot.py digests

`write` makes one file for each recording and verb, and goes on where it was interrupted. Each file has every run of
that verb by name: its exit status, the sentences on standard error, and the document that it printed. Keys are sorted;
there are no paths of a machine and no times in it, so two snapshots of the same code are the same bytes. `explain`
reads no recordings, so the bundled stacks, two more, and a dump of page tables of each format stand for it, once a
snapshot; so do generated workloads for `compare`. `--quick` leaves out what takes long: needs, other memories, other
designs.

`diff` says what changed from what to what, by path without run and places in lists, and exits with 1 if anything did.
A refactoring that shall change some rows lists them in a file for `--expect`: a glob a line, matched against
`RECORDING VERB RUN.PATH`, `#` for remarks.

`digests` writes digests.json anew, which tests/snapshot/test_snapshot.py compares: a digest of every file of the quick
form over the bundled recordings. If it differs, `write --quick swiommu/data OUT` before and after, and `diff`, say how.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUNDLED = ROOT / "swiommu" / "data"
TABLES = HERE.parent / "data" / "tables"
DIGESTS = HERE / "digests.json"
MANIFEST = "snapshot.json"

# Said here, not asked of the package: a design that is added later must not change this.
DESIGNS = (
    "as-recorded",
    "passthrough",
    "swiotlb",
    "swiotlb-natural",
    "carveout-best-fit",
    "cma-bitmap",
    "software-iommu",
    "iommu-strict",
    "iommu-lazy",
    "shim-over-iommu",
    "cma-lending",
    "gcma",
)
WORKLOADS = ("camera", "codec", "nic", "nvme", "mixed")
ALL_DESIGNS = [part for name in DESIGNS for part in ("--design", name)]
QUICK = {"equal": ["--no-need", *ALL_DESIGNS]}
WHOLE = {
    "equal": ALL_DESIGNS,
    "machine": ["--memory", "machine", "--no-need", "--cost", "guess", *ALL_DESIGNS],
    "random": ["--frames", "random", "--seed", "7", "--no-need", *ALL_DESIGNS],
    "others": ["--no-need", "--align", "4", "--require", "isolation", "--design", "designs.toml"],
    "report": ["--no-need", "--memory", "machine", "--html", "report.html", "--plotlyjs", "cdn"],
}
STACKS = {  # what each device of a stack asks for
    "gart": ["gpu"],
    "nested": ["camera"],
    "shared": ["camera", "codec", "dma"],
    "three": ["nic"],
    "window": ["camera"],
    "cached.toml": ["nic"],
    "open.toml": ["dma"],
}
ADDRESSES = (
    *(0x0, 0x1000, 0x1FF8, 0x3000, 0x4000, 0x1_0010, 0x1_4000, 0x1_7FFF, 0x1_8000, 0x20_0000, 0x100_0000),
    *(0x1000_0000, 0x1000_8000, 0x4000_0000, 0x8000_0000, 0xFEE0_0000, 0x1_0000_0000, (1 << 48) - 1, (1 << 64) - 1),
)
ACCESSES = (("r", "1"), ("w", "4"), ("rwx", "8192"))
PLACE = re.compile(r"\[[0-9]+\]")  # in a list
KEPT_NUMBERS = 64  # a longer list of a figure is a count and a digest


@dataclass(frozen=True)
class Task:
    """The runs of one verb on one thing: arguments by name, in a folder that holds what they read."""

    name: str
    verb: str
    runs: dict[str, list[str]]
    files: tuple[Path, ...] = ()
    size: int = 0

    @property
    def file(self):
        return f"{self.name}.{self.verb}.json"


# -- what there is to ask


def recordings(folder):
    """Recordings of a folder with what stands beside them, by name."""
    found = {}
    for path in sorted([*folder.rglob("*.trace.gz"), *folder.rglob("*.trace")]):
        name = path.name.removesuffix(".gz").removesuffix(".trace")
        beside = [path.with_name(name + ending) for ending in (".json", ".emulator.gz", ".emulator")]
        if name in found:
            sys.exit(f"two recordings are named {name}: {found[name][0]} and {path}")
        found[name] = (path, *(file for file in beside if file.exists()))
    return found


def tasks(folder, *, quick):
    """Everything, the longest first, so that the last of several jobs is a short one."""
    compare = QUICK if quick else WHOLE
    found = []
    for name, files in recordings(folder).items():
        trace, size = files[0].name, files[0].stat().st_size
        runs = {run: ["compare", "--json", *arguments, trace] for run, arguments in compare.items()}
        check = {"verify": ["verify", "--json", trace]}
        if not quick:  # in a folder of their own without the sidecar
            runs["bare"] = ["compare", "--json", "--no-need", *ALL_DESIGNS, f"bare/{trace}"]
            check["bare"] = ["verify", "--json", f"bare/{trace}"]
        found += [
            Task(name, "compare", runs, (*files, HERE / "designs.toml"), 10 * size),
            Task(name, "verify", check, files, size),
        ]
    found += [*workload_tasks(quick=quick), *stack_tasks(), *table_tasks()]
    return sorted(found, key=lambda task: -task.size)


def workload_tasks(*, quick):
    for workload in WORKLOADS[: 1 if quick else None]:
        runs = {f"seed {seed}": ["compare", "--json", "--workload", workload, "--seed", str(seed)] for seed in (0, 1)}
        if quick:
            runs = {"seed 0": [*runs["seed 0"], "--no-need"]}
        yield Task(f"workload-{workload}", "compare", runs)


def stack_tasks():
    for stack, devices in STACKS.items():
        runs = {}
        for device in devices:
            for address in ADDRESSES:
                for access, size in ACCESSES:
                    words = [stack, hex(address), "--device", device, "--access", access, "--size", size]
                    for again in ([], ["--again"]):
                        runs[" ".join([*words[3:4], *words[1:2], access, size, *again])] = [
                            *("explain", "translate", "--json"),
                            *words,
                            *again,
                        ]
        files = (HERE / "stacks" / stack,) if stack.endswith(".toml") else ()
        yield Task(f"stack-{stack.removesuffix('.toml')}", "explain", runs, files)


def table_tasks():
    for form, facts in json.loads((TABLES / "index.json").read_text()).items():
        ask = ["explain", "table", "--json", f"{form}.bin", "--format", form, "--root", facts["root"]]
        runs = {"tables": ask} | {f"walk to {at}": [*ask, "--at", at] for at in facts["at"]}
        yield Task(f"table-{form}", "explain", runs, (TABLES / f"{form}.bin.gz",))


# -- asking


def ask(arguments):
    """One run of the command line in this process: exit status, document, sentences."""
    from swiommu.cli.main import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with patch("sys.argv", ["swiommu", *arguments]), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ending:
            status = ending.code
        except Exception as error:  # noqa: BLE001 (an escape is an answer of sorts, to be seen in the difference)
            status = f"escaped: {type(error).__name__}: {error}"
    out.flush(), err.flush()
    text = out.buffer.getvalue().decode()
    return {
        "status": status,
        "answer": json.loads(text) if text else None,
        "stderr": err.buffer.getvalue().decode().splitlines(),
    }


def run(task):
    """The document of one task."""
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bare").mkdir()
        for number, file in enumerate(task.files):
            lay_down(file, Path(folder))
            if not number and ".trace" in file.name:
                lay_down(file, Path(folder) / "bare")
        with contextlib.chdir(folder):
            for name, arguments in task.runs.items():
                runs[name] = ask(arguments)
                if "--html" in arguments and Path("report.html").exists():
                    runs[name] = {"status": runs[name]["status"], "figures": figures(Path("report.html"))}
    return {"name": task.name, "verb": task.verb, "runs": runs}


def lay_down(file, folder):
    if file.name.endswith(".bin.gz"):  # `explain table` reads no gzip
        (folder / file.name.removesuffix(".gz")).write_bytes(gzip.decompress(file.read_bytes()))
    else:
        shutil.copyfile(file, folder / file.name)


def figures(page):
    """The figures of a report; of long lists only how long they are and a digest."""
    begin = '<script type="application/json" id="swiommu-figures">'
    document = page.read_text(encoding="utf-8").partition(begin)[2].partition("</script>")[0]
    return {figure.pop("id"): shortened(figure) for figure in json.loads(document)}


def shortened(value):
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) > KEPT_NUMBERS:
        return {"items": len(value), "sha256": digest(value)}
    return [shortened(item) for item in value] if isinstance(value, list) else value


def text_of(document):
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def digest(document):
    return hashlib.sha256(text_of(document).encode()).hexdigest()


# -- writing


def write(folder, out, *, quick=False, jobs=1, only="*"):
    """Write what is missing in ``out``; the files written, by name."""
    out.mkdir(parents=True, exist_ok=True)
    claim(out, {"form": "quick" if quick else "whole", "folder": folder.name, "code": code_digest()})
    todo = [task for task in tasks(folder, quick=quick) if fnmatch.fnmatch(task.name, only)]
    todo = [task for task in todo if not (out / task.file).exists()]
    written = {}
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with pool if jobs > 1 else contextlib.nullcontext():
        waiting = {pool.submit(run, task): task for task in todo} if jobs > 1 else {}
        done = ((future.result(), waiting[future]) for future in as_completed(waiting))
        for number, (document, task) in enumerate(done if jobs > 1 else ((run(task), task) for task in todo), 1):
            beside = out / f".{task.file}.{os.getpid()}"
            beside.write_text(text_of(document), encoding="utf-8")
            beside.replace(out / task.file)
            written[task.file] = document
            print(f"{number}/{len(todo)} {task.file}", file=sys.stderr, flush=True)
    return written


def claim(out, facts):
    """Refuse to go on with a snapshot of another form or of other code."""
    path = out / MANIFEST
    if path.exists() and (old := json.loads(path.read_text())) != facts:
        differs = [key for key in facts if old.get(key) != facts[key]]
        sys.exit(f"{out} was begun with another {' and '.join(differs)}: remove it, or write elsewhere")
    path.write_text(json.dumps(facts, indent=1) + "\n")


def code_digest():
    """A digest of the code that answers and of the questions."""
    code = hashlib.sha256()
    files = [path for path in (ROOT / "swiommu").rglob("*") if path.suffix in {".py", ".toml", ".j2", ".js", ".css"}]
    for path in sorted([*files, *HERE.rglob("*.py"), *HERE.rglob("*.toml")]):
        code.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return code.hexdigest()


# -- comparing


def differences(old, new, path=""):
    """(path, old value, new value) wherever two documents differ; rows that have a name go by it."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and named(old) and named(new):
        names = dict.fromkeys(row["name"] for row in (*old, *new))
        rows, others = ({row["name"]: row for row in rows} for rows in (old, new))
        for name in names:
            yield from differences(rows.get(name, ABSENT), others.get(name, ABSENT), f"{path}[{name}]")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif old != new or type(old) is not type(new):
        yield path, old, new


class Absent:
    def __repr__(self):
        return "(absent)"


ABSENT = Absent()


def named(rows):
    names = [row.get("name") for row in rows if isinstance(row, dict)]
    return len(names) == len(rows) == len(set(names)) and None not in names


def shown(old, new, width=120):
    """Two values from where they differ on, not endless."""
    one, other = repr(old) if old is ABSENT else json.dumps(old), repr(new) if new is ABSENT else json.dumps(new)
    if max(len(one), len(other)) <= width:
        return f"{one} -> {other}"
    same = next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), 0)
    begin = max(same - width // 4, 0)
    cut = [
        "..." * (begin > 0) + text[begin : begin + width] + "..." * (len(text) > begin + width) for text in (one, other)
    ]
    return f"{cut[0]} -> {cut[1]}"


def compare_snapshots(old, new, *, expected=(), paths=200, each=5):
    """What to print of two folders, and how many differences were not expected."""
    files = [{path.name: path for path in folder.glob("*.json") if path.name != MANIFEST} for folder in (old, new)]
    if not files[0] or not files[1]:
        sys.exit(f"{old if not files[0] else new} holds no snapshot")
    lines = [
        f"only in {folder}: {name}"
        for folder, mine, other in ((old, *files), (new, *files[::-1]))
        for name in sorted(mine.keys() - other.keys())
    ]
    unexpected, used = len(lines), set()
    groups = {}
    for name in sorted(files[0].keys() & files[1].keys()):
        one, other = (side[name].read_bytes() for side in files)
        if one == other:
            continue
        recording, verb, _ = name.rsplit(".", 2)
        for path, before, after in differences(json.loads(one)["runs"], json.loads(other)["runs"]):
            glob = next((glob for glob in expected if fnmatch.fnmatchcase(f"{recording} {verb} {path}", glob)), None)
            if glob is None:
                unexpected += 1
                run, _, rest = path.partition(".")
                key = f"{verb} " + PLACE.sub("[]", rest)
                groups.setdefault(key, []).append((f"{recording} {run}", shown(before, after)))
            used.add(glob)
    for key, found in list(groups.items())[:paths]:
        lines.append(f"{key}: {len(found)}")
        lines += [f"    {where}: {change}" for where, change in found[:each]]
        lines += [f"    and {len(found) - each} more"] * (len(found) > each)
    lines += [f"and {len(groups) - paths} more paths"] * (len(groups) > paths)
    lines += [f"expected, but the same: {glob}" for glob in expected if glob not in used]
    return lines, unexpected


# -- the committed digests


def quick_digests(only="*"):
    """Digests of the quick form over the bundled recordings, by file."""
    todo = [task for task in tasks(BUNDLED, quick=True) if fnmatch.fnmatch(task.name, only)]
    return {task.file: digest(run(task)) for task in sorted(todo, key=lambda task: task.file)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("write")
    one.add_argument("folder", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--quick", action="store_true")
    one.add_argument("--jobs", type=int, default=1)
    one.add_argument("--only", default="*", metavar="GLOB", help="names of recordings")
    two = verbs.add_parser("diff")
    two.add_argument("old", type=Path)
    two.add_argument("new", type=Path)
    two.add_argument("--expect", type=Path, metavar="FILE", help="globs of what may differ")
    two.add_argument("--paths", type=int, default=200, help="so many paths at most")
    two.add_argument("--each", type=int, default=5, help="so many changes for each path at most")
    verbs.add_parser("digests")
    options = parser.parse_args()
    if options.verb == "write":
        write(options.folder, options.out, quick=options.quick, jobs=options.jobs, only=options.only)
    elif options.verb == "digests":
        DIGESTS.write_text(text_of(quick_digests()), encoding="utf-8")
        print(f"wrote {DIGESTS}")
    else:
        globs = options.expect.read_text().splitlines() if options.expect else []
        expected = [line.strip() for line in globs if line.strip() and not line.startswith("#")]
        lines, unexpected = compare_snapshots(
            options.old, options.new, expected=expected, paths=options.paths, each=options.each
        )
        print(*lines, sep="\n", end="\n" if lines else "")
        sys.exit(unexpected > 0)


if __name__ == "__main__":
    main()
