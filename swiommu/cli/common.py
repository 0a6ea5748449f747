"""What the verbs share: the TRACE argument, addresses, and how an answer gets to standard output."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from swiommu.words import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

__all__ = [
    "DEFAULT_TRACE",
    "AddressType",
    "print_json",
    "progress",
    "progress_done",
    "say",
    "show",
    "trace_argument",
    "traces_argument",
    "write_page",
]

DEFAULT_TRACE = "arm64-6.12-cam-cma64M-s81"

_PIPED_WIDTH = 120
_NARROWEST = 40


class AddressType(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic since click 8.2
    """A number from 0 to 2**64 - 1, decimal or with 0x."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; a usage error for anything else."""
        text = str(value)
        try:
            number = int(text[:64], 0)
        except ValueError:
            self.fail(f"{text[:40]!r} is no address: a number such as 0x10000.", param, ctx)
        if not 0 <= number < 1 << 64 or len(text) > 64:
            self.fail("an address is from 0 to 2**64 - 1.", param, ctx)
        return number


class _NotWritten(click.ClickException):
    """The answer is there, but nobody can take it: a full disk, say."""

    exit_code = 3


def _not_empty(_ctx: click.Context, _param: click.Parameter, trace: str) -> str:
    """An unset variable in a script would name the current directory."""
    if not trace:
        raise click.BadParameter("the name is empty.")
    return trace


def _none_empty(ctx: click.Context, param: click.Parameter, traces: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_not_empty(ctx, param, trace) for trace in traces)


traces_argument = click.argument("traces", nargs=-1, metavar="[TRACE]...", callback=_none_empty)
trace_argument = click.argument("trace", required=False, default=DEFAULT_TRACE, metavar="[TRACE]", callback=_not_empty)


def show(render: Callable[[Console], None]) -> None:
    """Print what ``render`` puts on a console: styled on a terminal without NO_COLOR, else plain text.

    It is as wide as the terminal, or as COLUMNS says; 120 in a pipe, never under 40. No line ends in blanks.
    """
    from rich.console import Console

    page = io.StringIO()
    styled = bool(sys.stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
    width = max(shutil.get_terminal_size((_PIPED_WIDTH, 24)).columns, _NARROWEST)
    render(Console(file=page, force_terminal=styled, width=width, highlight=False, markup=False, emoji=False))
    _write("".join(f"{line.rstrip(' ')}\n" for line in page.getvalue().splitlines()))


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    _write(json.dumps(document, indent=2) + "\n")


def write_page(path: Path, page: str) -> None:
    """A page into a file, as UTF-8; exit status 3 and a sentence if it can't be written.

    It is written beside the file and renamed: an error or an interrupt leaves the old file as it was. What is no
    regular file (a pipe, ``/dev/stdout``) is written to as it is.
    """
    try:
        if path.is_relative_to("/dev") or (path.exists() and not path.is_file()):
            path.write_text(page, encoding="utf-8")
        else:
            _replace(path.resolve(), page)  # a symbolic link stays one
    except OSError as error:
        raise _NotWritten(f"{path} can't be written: {error.strerror}") from None


def _replace(target: Path, page: str) -> None:
    import tempfile

    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    beside = target.with_name(Path(name).name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0o077)  # the only way to ask
    os.umask(mask)
    return mask


def progress(word: str) -> None:
    """Say on stderr what is being done, where a person is watching."""
    if _watched():
        _complain(f"\r\x1b[K{clean(word)} ...")


def progress_done() -> None:
    """Wipe the progress line."""
    if _watched():
        _complain("\r\x1b[K")


def say(*lines: str) -> None:
    """Lines on stderr; what a path or a trace put into them can't drive the terminal.

    A stderr that takes nothing (closed, or a full disk) changes no exit status.
    """
    _complain("".join(f"{clean(line)}\n" for line in lines))


def _complain(text: str) -> None:
    try:
        click.echo(text, nl=False, err=True)
    except OSError:
        _drop_rest(sys.stderr)


def _watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None: closed by the caller


def _write(text: str) -> None:
    """All of the answer at once, so that what goes wrong with standard output goes wrong here and not at exit."""
    out = sys.stdout
    if out is None:  # closed by the caller, who wants the exit status only
        return
    try:
        out.write(text.encode(out.encoding, "replace").decode(out.encoding))
        out.flush()
    except OSError as error:
        _drop_rest(out)
        if not isinstance(error, BrokenPipeError):  # `| head` has read what it wanted
            raise _NotWritten(f"the answer can't be written: {error.strerror}") from None


def _drop_rest(out: TextIO) -> None:
    """Python flushes once more at exit, and would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
