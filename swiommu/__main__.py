"""``swiommu`` and ``python -m swiommu``: the command line, which an interrupt ends in one sentence at any moment."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal  # importing `signal` itself takes milliseconds, in which nothing catches an interrupt

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line; Ctrl-C while modules are imported ends it at once, as a verb ends by itself later.

    An interrupt that is to be ignored (a shell in the background says so) stays ignored.
    """
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, _quit)
    from swiommu.cli.main import main as command

    def imported() -> None:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        command(imported)
    except KeyboardInterrupt:  # while the answer to another one was on its way
        _quit()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the status is settled, and the interpreter goes down


def _quit(*_: object) -> NoReturn:
    """Say so and go: KeyboardInterrupt would be lost now and then, in what an import does behind the scenes."""
    try:
        os.write(2, b"swiommu: interrupted\n")
    finally:
        os._exit(130)


if __name__ == "__main__":
    main()
