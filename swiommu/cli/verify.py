"""``swiommu verify``: how much of what the recorded kernel decided the model predicts."""

from __future__ import annotations

import click

from swiommu.answers import verify
from swiommu.cli.common import print_json, progress, progress_done, show, trace_argument
from swiommu.report import print_verification
from swiommu.trace import read_trace

__all__ = ["command"]


@click.command("verify")
@trace_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON document (swiommu.verify/1).")
def command(*, trace: str, as_json: bool) -> int:
    """Predict every decision of TRACE before reading it, and say which came true. Exit status 1 if one did not.

    What the trace does not determine is counted apart, with its cause.
    """
    try:
        progress("reading")
        answer = verify(read_trace(trace))
    finally:
        progress_done()
    if as_json:
        print_json(answer.to_json())
    else:
        show(lambda console: print_verification(console, answer))
    return 1 if answer.mismatched else 0
