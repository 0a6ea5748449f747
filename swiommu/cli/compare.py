"""``swiommu compare``: recorded traces, several designs, one verdict."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swiommu.answers import Comparison, Comparisons, compare, read_cost_vector
from swiommu.cli.common import DEFAULT_TRACE, print_json, progress, progress_done, show, traces_argument, write_page
from swiommu.replay import (
    AS_RECORDED,
    DEFAULT_DESIGNS,
    PRESETS,
    Design,
    FrameOrder,
    Knobs,
    MemoryMode,
    find_design,
    read_designs,
)
from swiommu.report import PlotlyJs, comparison_html, print_comparison
from swiommu.requests.generated import generate, workload_names
from swiommu.trace import read_trace
from swiommu.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.requests import Workload
    from swiommu.trace import Trace

__all__ = ["command"]


@click.command("compare")
@traces_argument
@click.option(
    "--workload",
    type=click.Choice(workload_names()),
    help="A generated workload instead of a trace, for --seed.",
)
@click.option(
    "--design",
    "designs",
    multiple=True,
    metavar="NAME|FILE.toml",
    help="A design, or a file of designs, to run; repeat for several. "
    f"Default: {', '.join((AS_RECORDED, *DEFAULT_DESIGNS))}. "
    f"Only when asked for: {', '.join(name for name in PRESETS if name not in DEFAULT_DESIGNS)}.",
)
@click.option(
    "--memory",
    type=click.Choice([str(mode) for mode in MemoryMode]),
    default=str(MemoryMode.EQUAL),
    show_default=True,
    help="The same memory for every design, or what the recorded machine had.",
)
@click.option(
    "--no-need",
    is_flag=True,
    help="Do not look for the smallest memory that loses nothing.",
)
@click.option(
    "--align",
    "align_order",
    type=click.IntRange(0, 18),
    default=Knobs().align_order,
    show_default=True,
    metavar="ORDER",
    help="Largest alignment of contiguous memory, as an order of pages (CONFIG_CMA_ALIGNMENT).",
)
@click.option(
    "--frames",
    type=click.Choice([str(order) for order in FrameOrder]),
    default=str(FrameOrder.LARGEST),
    show_default=True,
    help="How translating designs take frames: as Linux does, or single ones at random.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="For --workload, --frames random and who uses lent pages."
)
@click.option(
    "--hz",
    type=click.IntRange(1, 10_000),
    default=Knobs().hz,
    show_default=True,
    help="Timer ticks a second of the kernel (CONFIG_HZ): when a lazy design flushes.",
)
@click.option(
    "--require",
    type=click.Choice(["isolation"]),
    help="What the reader requires: the verdict speaks only of designs that keep a device out of what it wasn't given.",
)
@click.option(
    "--cost", metavar="FILE.toml|guess", help="Prices of references, invalidations and copies: rank by cost too."
)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="OUT",
    help="Also write a report with figures: one file that needs no network.",
)
@click.option(
    "--plotlyjs",
    type=click.Choice([str(where) for where in PlotlyJs]),
    default=str(PlotlyJs.INLINE),
    show_default=True,
    help="For --html: the drawing library in the file (5 MB), or fetched when it is opened.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON document (swiommu.compare/1; of several traces swiommu.comparisons/1).",
)
def command(
    *,
    traces: tuple[str, ...],
    workload: str | None,
    designs: tuple[str, ...],
    memory: str,
    no_need: bool,
    align_order: int,
    frames: str,
    seed: int,
    hz: int,
    require: str | None,
    cost: str | None,
    page: Path | None,
    plotlyjs: str,
    as_json: bool,
) -> int:
    """What other designs would have done with the requests of each TRACE, beside what the kernel did.

    Without TRACE a bundled recording of six cameras on a 64 MiB CMA area is used. Columns: needs = the smallest memory
    that loses nothing the kernel served, a bounce pool apart (fail = of all requests, how many fail in it);
    lost/gained = served by the kernel but not by the design, and the other way round; waste = mean bytes charged that
    no request used; refs/MiB = page-table reads to touch each leaf once; exposed = how long at most a device still
    reached what was unmapped.
    """
    wanted = list(_designs(designs))  # a slip of the pen shows before a long trace is read
    prices = read_cost_vector(cost) if cost else None
    if page is not None and not page.parent.is_dir():
        raise click.BadParameter(f"there is no directory {page.parent}", param_hint="--html")
    if page is not None and len(traces) > 1:
        raise click.UsageError("--html takes one TRACE: a report is of one recording.")
    if workload and traces:
        raise click.UsageError("--workload stands for a TRACE: give one of the two.")
    answers: list[Comparison] = []
    try:
        for source in _sources(traces, workload, seed):
            answer = compare(
                source,
                wanted,
                memory=memory,
                knobs=Knobs(align_order=align_order, frames=FrameOrder(frames), seed=seed, hz=hz),
                with_need=not no_need,
                cost=prices,
                require_isolation=require == "isolation",
                keep_outcomes=page is not None,
                progress=progress,
            )
            answers.append(answer)
        if page is not None:
            progress("report")
            write_page(page, comparison_html(answers[0], plotlyjs=plotlyjs))
    finally:
        progress_done()
    _print(answers, as_json=as_json)
    return 0


def _designs(names: tuple[str, ...]) -> Iterator[str | Design]:
    """What ``--design`` asked for: names, and what stands in files."""
    for name in names or (AS_RECORDED, *DEFAULT_DESIGNS):
        if name.endswith(".toml"):
            yield from read_designs(name)
        elif name == AS_RECORDED:
            yield name
        else:
            yield find_design(name)


def _sources(traces: tuple[str, ...], workload: str | None, seed: int) -> Iterator[Trace | Workload]:
    """One after the other, so that only one trace is held at a time."""
    if workload:
        yield generate(workload, seed)
        return
    for trace in traces or (DEFAULT_TRACE,):
        progress(f"reading {trace}" if len(traces) > 1 else "reading")
        yield read_trace(trace)


def _print(answers: list[Comparison], *, as_json: bool) -> None:
    many = Comparisons(answers)
    if as_json:
        print_json(many.to_json() if len(answers) > 1 else answers[0].to_json())
        return
    for answer in answers:
        show(partial(print_comparison, answer=answer))
        if len(answers) > 1:
            show(lambda console: console.print())
    if len(answers) > 1:
        show(lambda console: console.print(clean(many.verdict)))
