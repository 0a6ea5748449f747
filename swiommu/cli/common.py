"""What the verbs share: the TRACE argument, the console, JSON output."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click
from rich.console import Console

__all__ = ["DEFAULT_TRACE", "console", "print_json", "progress", "trace_argument"]

DEFAULT_TRACE = "arm64-6.12-cam-cma64M-s81"

trace_argument = click.argument("trace", required=False, default=DEFAULT_TRACE, metavar="[TRACE]")

_PIPED_WIDTH = 120


def console() -> Console:
    """Standard output; in a pipe as wide as the table needs, and never coloured there (rich honours NO_COLOR)."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=int(os.environ.get("COLUMNS") or _PIPED_WIDTH), soft_wrap=False)


def progress(word: str) -> None:
    """Say on stderr what is being done, where a person is watching."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{word} ...", nl=False, err=True)


def progress_done() -> None:
    """Wipe the progress line."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2))
