"""``swiommu``: the group of verbs. Only click is imported before a verb is known, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from swiommu import __version__
from swiommu.cli.common import say
from swiommu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

# Verb, module, and the line in --help (said here so that --help imports no verb).
_VERBS = {
    "compare": ("swiommu.cli.compare", "One recorded trace, several designs, one verdict."),
    "explain": (
        "swiommu.cli.explain",
        "An access through a stack of IOMMUs, or the page tables in a dump of memory, step by step.",
    ),
    "verify": ("swiommu.cli.verify", "How much of what the recorded kernel decided the model predicts."),
}


_LONGEST = 300
_UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h: 1 says that verify found a mismatch, and nothing else


class _Call:
    """One call of the command line: its global options, and what to do once the verb is imported."""

    def __init__(self, imported: Callable[[], None]) -> None:
        self.imported = imported
        self.debug = False


class _Verbs(click.Group):
    """A group that imports a verb when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(_VERBS[cmd_name][0]).command
        call = ctx.find_object(_Call)
        if call is not None:
            call.imported()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None  # before click prints an empty line about it

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in _VERBS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.version_option(__version__, prog_name="swiommu", message="%(prog)s %(version)s")
@click.pass_obj
def _swiommu(call: _Call, *, debug: bool) -> None:
    """A software IOMMU: what another memory design would have done with your kernel's DMA trace.

    TRACE is a path (plain or gzip ftrace text, - for stdin) or the name of a bundled recording.
    """
    call.debug = debug


def main(imported: Callable[[], None] = lambda: None) -> NoReturn:
    """The entry point: runs a verb and turns what goes wrong into one sentence on stderr and an exit status.

    ``imported`` is called once the verb's modules are there.

    >>> from unittest.mock import patch
    >>> with patch("sys.argv", ["swiommu", "--version"]):
    ...     main()
    Traceback (most recent call last):
    SystemExit: 0
    """
    call = _Call(imported)
    try:
        status = _swiommu.main(prog_name="swiommu", standalone_mode=False, obj=call)
    except InputError as error:
        say(f"swiommu: {error}")
        status = 3
    except click.UsageError as error:
        page = io.StringIO()
        error.show(page)
        say(*page.getvalue().splitlines())
        status = error.exit_code
    except click.ClickException as error:
        say(f"swiommu: {error.format_message()}")
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("swiommu: interrupted")
        status = 130
    except OSError as error:
        say(f"swiommu: {error}")
        status = 3
    except SystemExit:
        status = 0  # click's way out when nobody reads the help any more; verbs look after their own output
    except Exception as error:  # noqa: BLE001 - a traceback is no answer
        _say_unexpected(error, debug=call.debug)
        status = _UNEXPECTED
    sys.exit(status or 0)


def _say_unexpected(error: Exception, *, debug: bool) -> None:
    import traceback

    if debug:
        say(*"".join(traceback.format_exception(error)).splitlines())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(" :")
    say(
        f"swiommu: internal error: {what[:_LONGEST]} (in {frame.name}, {Path(frame.filename).name}:{frame.lineno}), "
        "a mistake in swiommu: please report it to its authors with the command and its input; swiommu --debug shows "
        "the traceback"
    )
