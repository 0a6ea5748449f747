"""What is done with a case of each kind. It must be answered or refused with a sentence, and the answer must add up."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from functools import cache
from random import Random
from unittest.mock import patch

import fuzz_files as files
import fuzz_traces as traces

from swiommu.address import Access, PhysRange, PhysSpace
from swiommu.answers import compare, explain, explain_table, read_cost_vector, verify
from swiommu.errors import InputError, InvalidArgument, NotFound, NotSupported, OutOfRange, SwiommuError
from swiommu.pagetable.dump import MemoryDump
from swiommu.pagetable.formats import format_named
from swiommu.region.mainline import BootMemory, declare_area, plan_command_line, plan_reserved_memory, read_device_tree
from swiommu.replay import Knobs, bytes_needed, equal_plan, find_design, machine_plan, read_designs
from swiommu.report import comparison_html, table_text, walk_svg, walk_text
from swiommu.requests import workload_of
from swiommu.stackfile import read_stack
from swiommu.trace import read_trace

DESIGNS = ("as-recorded", *files.PRESETS)


# -- recordings


def recording_files(rng):
    """A recording of any sort: most from the machine, some pieces of real ones, half of them damaged."""
    draw, log = rng.random(), ()
    if draw < 0.3:
        lines, facts, log = traces.cut_out(rng)
        facts = json.loads(rng.choice(files.sidecars())) if rng.random() < 0.1 else facts | {"name": "case"}
    else:
        lines, facts = traces.written(rng, mischief=draw < 0.8)
    if rng.random() < 0.4:
        lines = traces.damaged(rng, lines)
    if rng.random() < 0.25:
        facts = None
    return files.with_beside(rng, lines or [b"# nothing"], facts, log if rng.random() < 0.3 else ())


def make_trace(rng):
    found = recording_files(rng)
    if rng.random() < 0.02:
        packed = files.gzip.compress(found.pop("case.trace"), 1, mtime=0)
        found["case.trace.gz"] = files.damaged_bytes(rng, packed) if rng.random() < 0.8 else packed
        return found, {}
    return found, {}


def read(folder):
    """The recording, every line of it accounted for, and its requests."""
    packed = folder / "case.trace.gz"
    trace = read_trace(packed if packed.exists() else folder / "case.trace")
    trace.account.check()
    trace.table.check()
    workload = workload_of(trace)
    assert len(workload.requests) == len(workload.served), "a request without an answer"
    return trace, workload


def try_trace(folder, options):
    _, workload = read(folder)
    machine_plan(workload)
    equal_plan(workload)


def make_compare(rng):
    options = {
        "designs": rng.sample(DESIGNS, 1 if rng.random() < 0.7 else 2),
        "memory": rng.choice(("equal", "equal", "machine")),
        "frames": rng.choice(("largest", "largest", "random")),
        "align": rng.choice((8, 8, 4, 0, 18)),
        "seed": rng.randint(0, 3),
        "cost": rng.random() < 0.2,
        "isolation": rng.random() < 0.2,
        "page": rng.random() < 0.02,
    }
    return recording_files(rng), options


def try_compare(folder, options):
    trace, workload = read(folder)
    compared(trace, workload, options)


def compared(trace, workload, options):
    """A comparison whose rows add up."""
    answer = compare(
        trace,
        options["designs"],
        memory=options["memory"],
        knobs=Knobs(align_order=options["align"], frames=options["frames"], seed=options["seed"]),
        with_need=False,
        cost=read_cost_vector("guess") if options["cost"] else None,
        require_isolation=options["isolation"],
        keep_outcomes=options["page"],
    )
    censored = sum(request.censored for request in workload.requests)
    for row in answer.rows:
        assert row.requests == len(workload.requests), "another number of requests"
        assert row.failed + row.not_applicable <= row.requests, "more failed than were made"
        assert 0 <= row.lost <= row.failed, "more lost than failed"
        assert 0 <= row.gained <= censored, "more gained than were censored"
        assert row.failed == row.lost + censored - row.gained or row.not_applicable, "failures do not add up"
        assert row.waste is None or row.waste.total == sum(row.to_json()["waste"].values()), "waste split"
        assert all(number >= 0 for number in counts(row)), "negative"
    json.dumps(answer.to_json(), allow_nan=False)
    if options["page"]:
        comparison_html(answer, plotlyjs="cdn")


def counts(row):
    """What of a row is known and counted; mean waste is among it."""
    values = row.to_json()
    return [value for value in (*values.values(), *(values["waste"] or {}).values()) if isinstance(value, int | float)]


def make_need(rng):
    options = {
        "design": rng.choice(files.PRESETS),
        "frames": rng.choice(("largest", "largest", "largest", "random")),
        "align": rng.choice((8, 8, 0)),
    }
    return recording_files(rng), options


def try_need(folder, options):
    _, workload = read(folder)
    need = bytes_needed(workload, find_design(options["design"]), Knobs(options["align"], options["frames"]))
    assert (need.bytes is None) == bool(need.why), "no number and no reason"
    assert not (need.bytes or 0) % (2 << 20), "no multiple of 2 MiB"


def make_verify(rng):
    return recording_files(rng), {}


def try_verify(folder, options):
    trace, _ = read(folder)
    verified(trace)


def verified(trace):
    answer = verify(trace)
    for tally in answer.classes:
        assert tally.total == sum(tally.by_kind.values()), "kinds do not add up"
        assert min((tally.matched, tally.mismatched, *tally.undetermined.values())) >= 0, "negative"
    json.dumps(answer.to_json(), allow_nan=False)
    assert isinstance(answer.unread, str)


# -- what stands beside recordings


def make_sidecar(rng):
    lines, facts = traces.written(rng, mischief=False, steps=rng.randint(1, 6))
    facts = files.sidecar(rng, facts if rng.random() < 0.5 else None)
    if not isinstance(facts, dict):
        facts = {"name": "case"}
    options = make_compare(rng)[1] | {"designs": [rng.choice(DESIGNS)], "page": False}
    return files.with_beside(rng, lines or [b"# nothing"], facts), options


def try_sidecar(folder, options):
    trace, workload = read(folder)
    compared(trace, workload, options)
    verified(trace)


def make_emulator(rng):
    return files.emulator_log(rng), {}


def try_emulator(folder, options):
    trace = read_trace(folder / "case.trace")
    verified(trace)
    if trace.emulator:
        for _ in trace.emulator:
            pass
        trace.emulator.account.check()


# -- TOML


@cache
def small_workloads():
    """Requests to try designs and prices on."""
    found = []
    for seed in range(12):
        rng = Random(seed)
        lines, facts = traces.written(rng, mischief=False, steps=12)
        found.append((b"\n".join(lines) + b"\n", json.dumps(facts).encode()))
    return found


def make_designs(rng):
    trace, facts = rng.choice(small_workloads())
    options = make_compare(rng)[1] | {"designs": [], "page": False}
    return {"case.toml": files.designs(rng), "case.trace": trace, "case.json": facts}, options


def try_designs(folder, options):
    found = read_designs(str(folder / "case.toml"))
    trace, workload = read(folder)
    compared(trace, workload, options | {"designs": found})


def make_costs(rng):
    trace, facts = rng.choice(small_workloads())
    return {"case.toml": files.costs(rng), "case.trace": trace, "case.json": facts}, {}


def try_costs(folder, options):
    vector = read_cost_vector(str(folder / "case.toml"))
    answer = compare(read(folder)[0], ["iommu-strict", "iommu-lazy", "swiotlb"], with_need=False, cost=vector)
    json.dumps(answer.to_json(), allow_nan=False)


def make_stack(rng):
    ask = [
        (rng.choice((0, 0x1000, 0x1_0010, 0x20_0000, 0x1000_0000, files.number(rng))), rng.choice((1, 8, 8192)))
        for _ in range(2)
    ]
    return {"case.toml": files.stack(rng)}, {
        "ask": ask,
        "again": rng.random() < 0.4,
        "access": rng.choice((1, 2, 3, 7)),
    }


def try_stack(folder, options):
    graph = read_stack(str(folder / "case.toml"))
    for top in graph.tops():
        for iova, size in options["ask"]:
            answer = explain(top, iova & (1 << 64) - 1, size, Access(options["access"]), again=options["again"])
            json.dumps(answer.to_json(), allow_nan=False)
            plain(walk_text(answer, width=80, depth=None))
    walk_svg(answer)


def plain(text):
    """Nothing in a text that drives a terminal."""
    assert all(line.isprintable() for line in text.split("\n")), "control characters in an answer"


# -- device trees, command lines


def make_dtb(rng):
    data = files.flattened(rng, files.tree(rng))
    return {"case.dtb": files.damaged_bytes(rng, data)}, plan_options(rng)


def make_dts(rng):
    return {"case.dtb": files.device_tree_source(rng)}, plan_options(rng)


def plan_options(rng):
    return {"cma_given": rng.random() < 0.2, "arm32": rng.random() < 0.2, "page_size": rng.choice((4096, 4096, 65536))}


def try_tree(folder, options):
    tree = read_device_tree(str(folder / "case.dtb"))
    plan = plan_reserved_memory(tree, **options)
    for refusal in plan.refused:
        str(refusal)
    ram = [PhysRange(PhysSpace("ram").at(0x4000_0000), 1 << 30)]
    memory = BootMemory(ram, page_size=options["page_size"])
    for node in plan.nodes:
        with contextlib.suppress(SwiommuError):
            declare_area(memory, node.size, base=node.start or 0, fixed=bool(node.start))


def make_command_line(rng):
    return {"case.txt": files.command_line(rng).encode()}, {"nodes": rng.choice(((0,), (0, 1)))}


def try_command_line(folder, options):
    plan = plan_command_line((folder / "case.txt").read_bytes().decode("latin-1"), nodes=options["nodes"])
    for refusal in plan.refused:
        str(refusal)
    memory = BootMemory([PhysRange(PhysSpace("ram").at(0x4000_0000), 1 << 30)])
    for area in plan.areas:
        with contextlib.suppress(SwiommuError):
            declare_area(memory, area.size, base=area.base, limit=area.limit, fixed=area.fixed)


# -- dumps


def make_dump(rng):
    data, options = files.dump(rng)
    return {"case.bin": data}, options


def try_dump(folder, options):
    memory = MemoryDump({options["base"]: (folder / "case.bin").read_bytes()})
    form = format_named(options["format"])
    answer = explain_table(memory, form, options["root"], levels=options.get("levels"), at=options.get("at"))
    json.dumps(answer.to_json(), allow_nan=False)
    plain(table_text(answer, width=100, limit=200))


# -- the command line


def make_cli(rng):
    """A whole command, as a shell would run it."""
    draw, found = rng.random(), {}
    if draw < 0.5:
        found = recording_files(rng)
        words = ["compare", *(part for name in rng.sample(DESIGNS, 2) for part in ("--design", name))]
        words += rng.choice(([], ["--no-need"], ["--memory", "machine"], ["--frames", "random", "--seed", "-3"]))
        words += rng.choice(([], ["--json"], ["--align", str(rng.choice((0, 18, 19)))], ["--cost", "guess"]))
        words += ["case.trace"] * rng.choice((1, 1, 1, 2))
    elif draw < 0.7:
        found = recording_files(rng)
        words = ["verify", *rng.choice(([], ["--json"])), "case.trace"]
    elif draw < 0.85:
        found["case.toml"] = files.stack(rng)
        words = ["explain", "translate", "case.toml", hex(files.number(rng)), "--access", rng.choice(("r", "w", "rwx"))]
        words += rng.choice(([], ["--json"], ["--size", "4096", "--again"], ["--device", "dev"], ["--depth", "0"]))
    else:
        found["case.bin"], facts = files.dump(rng)
        words = ["explain", "table", "case.bin"]
        words += [
            part for key, value in facts.items() for part in (f"--{'format' if key == 'format' else key}", str(value))
        ]
        words += rng.choice(([], ["--json"], ["--limit", "3"]))
    return found, {"words": words}


def try_cli(folder, options):
    from swiommu.cli.main import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2))
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with contextlib.chdir(folder), patch("sys.argv", ["swiommu", *options["words"]]), streams[0], streams[1]:
        try:
            main()
        except SystemExit as ending:
            status = ending.code
    for stream in (out, err):
        stream.flush()
    said = err.buffer.getvalue().decode()
    plain(out.buffer.getvalue().decode())
    plain(said)
    assert status in {0, 1, 2, 3}, f"exit status {status}: {said[-300:]}"
    assert status < 2 or said.strip(), "refused without a sentence"
    if status in {2, 3}:
        raise InputError(said.strip().splitlines()[-1])


# -- all of them: share, maker, trial, and what else than `InputError` is a refusal

NOT_THERE = (InvalidArgument, NotFound, OutOfRange)  # the command line makes sentences of these
KINDS = {
    "trace": (30, make_trace, try_trace, ()),
    "compare": (17, make_compare, try_compare, ()),
    "need": (4, make_need, try_need, ()),
    "verify": (12, make_verify, try_verify, ()),
    "sidecar": (7, make_sidecar, try_sidecar, ()),
    "emulator": (7, make_emulator, try_emulator, ()),
    "designs": (4, make_designs, try_designs, ()),
    "costs": (2, make_costs, try_costs, ()),
    "stack": (6, make_stack, try_stack, ()),
    "dtb": (4, make_dtb, try_tree, ()),
    "dump": (5, make_dump, try_dump, NOT_THERE),
    "command-line": (1.4, make_command_line, try_command_line, ()),
    "cli": (0.5, make_cli, try_cli, ()),
}
if shutil.which("dtc"):
    KINDS["dts"] = (0.1, make_dts, try_tree, (NotSupported,))
