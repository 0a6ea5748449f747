"""``swiommu compare``: one recorded trace, several designs, one verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from swiommu.answers import compare
from swiommu.cli.common import print_json, progress, progress_done, show, trace_argument, write_page
from swiommu.replay import AS_RECORDED, DEFAULT_DESIGNS, Knobs, find_design
from swiommu.report import PlotlyJs, comparison_html, print_comparison
from swiommu.trace import read_trace

__all__ = ["command"]


@click.command("compare")
@trace_argument
@click.option(
    "--design",
    "designs",
    multiple=True,
    metavar="NAME",
    help=f"A design to run; repeat for several. Default: all, which are {', '.join((AS_RECORDED, *DEFAULT_DESIGNS))}.",
)
@click.option(
    "--memory",
    type=click.Choice(["equal", "machine"]),
    default="equal",
    show_default=True,
    help="The same memory for every design, or what the recorded machine had.",
)
@click.option(
    "--need/--no-need",
    "with_need",
    default=True,
    show_default=True,
    help="Find the smallest memory that loses nothing.",
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
    type=click.Choice(["largest", "random"]),
    default="largest",
    show_default=True,
    help="How translating designs take frames: as Linux does, or single ones at random.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For --frames random.")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="OUT",
    help="Also write a report with figures: one file that needs no network.",
)
@click.option(
    "--plotlyjs",
    type=click.Choice(["inline", "cdn"]),
    default="inline",
    show_default=True,
    help="For --html: the drawing library in the file (5 MB), or fetched when it is opened.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document (swiommu.compare/1).")
def command(
    *,
    trace: str,
    designs: tuple[str, ...],
    memory: Literal["equal", "machine"],
    with_need: bool,
    align_order: int,
    frames: str,
    seed: int,
    page: Path | None,
    plotlyjs: PlotlyJs,
    as_json: bool,
) -> int:
    """What other designs would have done with the requests of TRACE, beside what the kernel did.

    Without TRACE a bundled recording of six cameras on a 64 MiB CMA area is used. Columns: needs = the smallest memory
    that loses nothing the kernel served; lost/gained = served by the kernel but not by the design, and the other way
    round; waste = mean bytes charged that served nobody; refs/MiB = page-table reads to touch each leaf once.
    """
    for name in designs:  # a slip of the pen shows before a long trace is read
        if name != AS_RECORDED:
            find_design(name)
    if page is not None and not page.parent.is_dir():
        raise click.BadParameter(f"there is no directory {page.parent}", param_hint="--html")
    try:
        progress("reading")
        answer = compare(
            read_trace(trace),
            designs or (AS_RECORDED, *DEFAULT_DESIGNS),
            memory=memory,
            knobs=Knobs(align_order=align_order, frames=frames, seed=seed),
            with_need=with_need,
            keep_outcomes=page is not None,
            progress=progress,
        )
        if page is not None:
            progress("report")
            write_page(page, comparison_html(answer, plotlyjs=plotlyjs))
    finally:
        progress_done()
    if as_json:
        print_json(answer.to_json())
    else:
        show(lambda console: print_comparison(console, answer))
    return 0
