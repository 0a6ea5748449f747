"""``swiommu explain table``: page tables in a dump of raw memory."""

from __future__ import annotations

import contextlib
import stat
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from swiommu.answers import explain_table
from swiommu.cli.common import AddressType, print_json, show
from swiommu.errors import InputError, InvalidArgument, NotFound, OutOfRange
from swiommu.pagetable.dump import FileBytes, MemoryDump
from swiommu.pagetable.formats import FORMATS, format_named
from swiommu.report import table_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from swiommu.pagetable import Format

__all__ = ["command"]

_LARGEST: Final = 256 << 20
_WIDEST: Final = 120
_LINES: Final = 200
_MAGIC: Final = (
    (b"\x7fELF", "is an ELF core, whose headers are no memory: dump with `pmemsave`, or cut the memory out of it"),
    (b"KDUMP   ", "is a kdump file, whose headers are no memory: read the tables with crash or drgn and save those"),
    (b"DISKDUMP", "is a kdump file, whose headers are no memory: read the tables with crash or drgn and save those"),
    (b"EMiL", "is a LiME dump, whose headers are no memory: dump with format=padded"),
    (b"\x1f\x8b", "is compressed with gzip: decompress it first"),
    (b"\xfd7zXZ", "is compressed with xz: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: decompress it first"),
)


def _format(_ctx: click.Context, _param: click.Parameter, name: str) -> Format:
    try:
        return format_named(name)
    except InvalidArgument as error:
        raise click.BadParameter(str(error)) from None


# Names are not broken at their hyphens.
_NAMES: Final = textwrap.fill(", ".join(FORMATS), 76, break_on_hyphens=False)


@click.command("table", short_help="Print the page tables in a dump of memory.", epilog=f"\b\nThe formats:\n{_NAMES}")
@click.argument("dump", metavar="DUMP")
@click.option(
    "--format",
    "form",
    required=True,
    callback=_format,
    metavar="NAME",
    help="Whose tables these are; the names are below.",
)
@click.option("--root", type=AddressType(), required=True, metavar="ADDRESS", help="Physical address of the top table.")
@click.option(
    "--base",
    type=AddressType(),
    default=0,
    show_default=True,
    metavar="ADDRESS",
    help="Physical address of the first byte of DUMP.",
)
@click.option(
    "--levels",
    type=click.IntRange(1),
    metavar="N",
    help="How many levels the root is the top of. Default: those of a new table, which only amd-v1 lets grow.",
)
@click.option("--at", type=AddressType(), metavar="IOVA", help="Only the walk to this address, entry by entry.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=_LINES,
    show_default=True,
    metavar="LINES",
    help="Print no more of the tables than this, before lines are broken; 0 for all, up to 65536.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON document (swiommu.explain.table/1), of up to 65536 rows."
)
def command(
    *, dump: str, form: Format, root: int, base: int, levels: int | None, at: int | None, limit: int, as_json: bool
) -> int:
    """Print the page tables in DUMP, the bytes of physical memory as they are (- for stdin).

    Leaves that follow one another are one line, and so are equal tables after the first. What is not empty but can't
    be there is told with its reason; holes are not.
    """
    if not dump:  # an unset variable in a script
        raise click.BadParameter("the name is empty.", param_hint="'DUMP'")
    try:
        with _memory(dump, base) as memory:
            answer = explain_table(memory, form, root, levels=levels, at=at)
    except OutOfRange as error:
        raise click.BadParameter(f"{error}.", param_hint="'--at'") from None
    except (InvalidArgument, NotFound) as error:
        raise InputError(str(error), path=dump) from None
    if as_json:
        print_json(answer.to_json())
    else:
        show(
            lambda console: _print(console, table_text(answer, width=min(console.width, _WIDEST), limit=limit or None))
        )
    return 0


@contextlib.contextmanager
def _memory(dump: str, base: int) -> Iterator[MemoryDump]:
    """The dump; one that is no regular file is read at once, and has to be small enough for that."""
    with contextlib.ExitStack() as stack:
        kept: FileBytes | bytes
        if dump == "-":
            kept = _all(sys.stdin.buffer if sys.stdin else None, dump)
        else:
            try:
                file = stack.enter_context(Path(dump).open("rb"))
            except OSError as error:
                raise InputError(f"can't be read: {error.strerror}", path=dump) from None
            except ValueError:
                raise InputError("can't be read: a path has no zero byte", path=dump) from None
            kept = FileBytes(file) if stat.S_ISREG(Path(dump).stat().st_mode) else _all(file, dump)
        if not len(kept):
            raise InputError("is empty", path=dump)
        for magic, what in _MAGIC:
            if kept[: len(magic)] == magic:
                raise InputError(what, path=dump)
        yield MemoryDump({base: kept})


def _all(file: BinaryIO | None, dump: str) -> bytes:
    data = file.read(_LARGEST + 1) if file is not None else b""
    if len(data) > _LARGEST:
        raise InputError(f"is larger than {_LARGEST >> 20} MiB: save it in a file", path=dump)
    return data


def _print(console: Console, text: str) -> None:
    from rich.text import Text

    for number, line in enumerate(text.split("\n")):
        console.print(Text(line, style="" if number else "bold"), soft_wrap=True)
