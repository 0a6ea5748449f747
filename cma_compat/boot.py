"""The 2010 parameters of a kernel's command line, ``cma=`` and ``cma.map=``, put into force where somebody asks.

Off by default, as the reviewers of 2010 wanted: no context looks at a command line by itself. Platform code that
wants to be debugged this way calls `apply_command_line` before it reserves.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cma_compat.cmdline import read_regions, split_parameters
from cma_compat.structures import cma_region
from swiommu.errors import SwiommuError

if TYPE_CHECKING:
    from cma_compat.core import ContiguousMemory

__all__ = ["apply_command_line"]

_log = logging.getLogger("cma_compat")


def apply_command_line(memory: ContiguousMemory, command_line: str) -> list[SwiommuError]:
    """Register early what ``cma=`` lists, and set the map of ``cma.map=``; other parameters are passed over.

    Regions add to those that are there, a map replaces the one that is there. The errors of parameters that have a
    fault are logged and answered; such a list leaves the regions before the fault, such a map nothing. The parameters
    after it count all the same. Source: RFC v4, sections 5 and 9 of our notes.

    >>> from cma_compat import CmaContext
    >>> cma = CmaContext()
    >>> apply_command_line(cma, "quiet cma=camera=20M;spare=1M@64M:bf cma.map=*=camera,spare")
    []
    >>> [(region.name, region.start, region.size) for region in cma.early_regions]
    [('camera', 0, 20971520), ('spare', 67108864, 1048576)]
    >>> [refusal.column for refusal in apply_command_line(cma, "cma=a=1M;b=none")]
    [8]
    """
    refusals: list[SwiommuError] = []
    for name, value in split_parameters(command_line):
        try:
            if name == "cma":
                _register(memory, value)
            elif name == "cma.map":
                memory.set_defaults(None, value)
        except SwiommuError as refusal:
            _log.warning("%s=%s: %s", name, value, refusal)
            refusals.append(refusal)
    return refusals


def _register(memory: ContiguousMemory, text: str) -> None:
    # Each region is registered before the next one is read, so that those before a fault stay.
    for listed in read_regions(text):
        region = cma_region(
            listed.start,
            listed.size,
            listed.name,
            listed.alloc_name,
            alignment=listed.alignment,
            copy_name=True,
        )
        memory.register_early(region)
