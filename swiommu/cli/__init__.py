"""The command line: one module a verb, each imported when its verb is typed. What is said here is only how to ask.

Exit status: 0 answered, 1 findings (verify: a mismatch), 2 usage, 3 bad input, 70 an unexpected error, 130 interrupted.
Answers go to stdout, all else to stderr.
"""

from __future__ import annotations

from swiommu.cli.main import main

__all__ = ["main"]
