"""``swiommu explain``: one thing at a time, told step by step: how an access finds its memory, what a table holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from swiommu.address import Access
from swiommu.answers import explain
from swiommu.cli import explain_table
from swiommu.cli.common import AddressType, print_json, show, write_page
from swiommu.report import walk_svg, walk_text
from swiommu.stackfile import read_stack
from swiommu.words import clean

if TYPE_CHECKING:
    from rich.console import Console

    from swiommu.layer import Graph, Node

__all__ = ["command"]

_ACCESSES = {
    "r": Access.READ,
    "w": Access.WRITE,
    "x": Access.EXEC,
    "rw": Access.READ | Access.WRITE,
    "rx": Access.READ | Access.EXEC,
    "rwx": Access.READ | Access.WRITE | Access.EXEC,
}
_LARGEST = 1 << 20
_WIDEST = 100


class _Size(AddressType):
    """A number of bytes that can be walked while somebody waits."""

    name = "bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = super().convert(value, param, ctx)
        if not 1 <= number <= _LARGEST:
            self.fail(f"an access is of 1 to {_LARGEST} bytes.", param, ctx)
        return number


@click.group("explain", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Tell one thing step by step."""


command.add_command(explain_table.command)


@command.command("translate", short_help="Send one access through a stack, step by step.")
@click.argument("stack", metavar="STACK")
@click.argument("address", type=AddressType(), metavar="ADDRESS")
@click.option(
    "--device", metavar="NAME", help="Where the access comes from: a device, or any layer. Default: the only way in."
)
@click.option(
    "--access", "wanted", type=click.Choice(list(_ACCESSES)), default="r", show_default=True, help="What is wanted."
)
@click.option(
    "--size", type=_Size(), default=1, show_default=True, metavar="BYTES", help=f"How much, up to {_LARGEST} bytes."
)
@click.option(
    "--depth",
    type=click.IntRange(0),
    help="Leave out walks nested deeper than this. Default: as deep as a page or two can show.",
)
@click.option(
    "--again", is_flag=True, help="Tell of the second of two such accesses: caches of the stack have the first."
)
@click.option("--svg", "drawing", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT", help="Also draw it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document (swiommu.explain.translate/1).")
def _translate(
    *,
    stack: str,
    address: int,
    device: str | None,
    wanted: str,
    size: int,
    depth: int | None,
    again: bool,
    drawing: Path | None,
    as_json: bool,
) -> int:
    """Send one access through STACK: its way through every layer, each reference, and who refuses it.

    STACK is a TOML file (the reference tells its keys) or the name of a bundled stack. Translation caches are not
    asked, as this is what the access costs cold, unless it is sent again.
    """
    if drawing is not None and not drawing.parent.is_dir():
        raise click.BadParameter(f"there is no directory {drawing.parent}", param_hint="--svg")
    graph = read_stack(stack)
    answer = explain(_entrance(graph, device), address, size, _ACCESSES[wanted], stack=stack, again=again)
    if drawing is not None:
        write_page(drawing, walk_svg(answer))
    if as_json:
        print_json(answer.to_json())
    else:
        show(lambda console: _print(console, walk_text(answer, width=min(console.width, _WIDEST), depth=depth)))
    return 0


def _entrance(graph: Graph, name: str | None) -> Node:
    """The node that the access enters by."""
    if name is None:
        devices = [node for node in graph if node.layer.kind == "device"]
        ways = devices or [node for node in graph.tops() if not node.readers]
        if len(ways) == 1:
            return ways[0]
        names = ", ".join(clean(node.name) for node in ways)
        raise click.UsageError(f"There are several ways in; choose one with --device: {names}.")
    if name not in graph:
        names = ", ".join(clean(node.name) for node in graph)
        raise click.BadParameter(f"{name!r} is not in this stack; there are {names}.", param_hint="--device")
    return graph[name]


def _print(console: Console, text: str) -> None:
    from rich.text import Text

    for number, line in enumerate(text.split("\n")):
        style = "bold" if not number else "bold red" if line.lstrip().startswith("FAULT") else ""
        console.print(Text(line, style=style), soft_wrap=True)
