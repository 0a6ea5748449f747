"""``swiommu``: the group of verbs. Only click is imported before a verb is known, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any, NoReturn

import click

from swiommu import __version__
from swiommu.errors import InputError
from swiommu.words import clean

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


class _Verbs(click.Group):
    """A group that imports a verb when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(_VERBS[cmd_name][0]).command
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
@click.version_option(__version__, prog_name="swiommu", message="%(prog)s %(version)s")
def _swiommu() -> None:
    """A software IOMMU: what another memory design would have done with your kernel's DMA trace.

    TRACE is a path (plain or gzip ftrace text, - for stdin) or the name of a bundled recording.
    """


def main() -> NoReturn:
    """The entry point: runs a verb and turns bad input into one sentence on stderr and exit status 3.

    >>> from unittest.mock import patch
    >>> with patch("sys.argv", ["swiommu", "--version"]):
    ...     main()
    Traceback (most recent call last):
    SystemExit: 0
    """
    try:
        status = _swiommu.main(standalone_mode=False)
    except InputError as error:
        _say(f"swiommu: {error}")
        status = 3
    except click.UsageError as error:
        page = io.StringIO()
        error.show(page)
        _say(*page.getvalue().splitlines())
        status = error.exit_code
    except click.ClickException as error:
        _say(f"swiommu: {error.format_message()}")
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("swiommu: interrupted")
        status = 130
    except OSError as error:
        _say(f"swiommu: {error}")
        status = 3
    except SystemExit:
        status = 0  # click's way out when nobody reads the help any more; verbs look after their own output
    sys.exit(status or 0)


def _say(*lines: str) -> None:
    """Lines on stderr; what a path or a trace put into them can't drive the terminal."""
    for line in lines:
        click.echo(clean(line), err=True)
