"""Workloads for people without a trace: seeded scripts of cameras, codecs, network cards and disks.

Each generator writes begins and ends on a `Script`; the same seed writes the same script, on every machine. Buffer
sizes are those of real devices (their drivers' constants), arrivals are Poisson, lifetimes as told in each module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import InputError
from swiommu.requests.generated.media import camera, codec, display
from swiommu.requests.generated.script import Script
from swiommu.requests.generated.storage_and_network import nic, nvme
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.requests.workload import Workload

__all__ = ["Script", "generate", "workload_names"]

_PARTS: dict[str, Sequence[Callable[[Script], None]]] = {
    "camera": (camera,),
    "codec": (codec,),
    "nic": (nic,),
    "nvme": (nvme,),
    "mixed": (display, camera, codec, nic, nvme),
}


def workload_names() -> list[str]:
    """The names that `generate` knows.

    >>> workload_names()
    ['camera', 'codec', 'nic', 'nvme', 'mixed']
    """
    return list(_PARTS)


def generate(name: str, seed: int = 0) -> Workload:
    """The workload of that name; `InputError` names the nearest for any other.

    >>> one, other = generate("camera", 7), generate("camera", 7)
    >>> one.ops == other.ops, one.censored
    (True, 0)
    """
    if name not in _PARTS:
        raise InputError(f"no workload is named {name!r}; {did_you_mean(name, _PARTS)}")
    script = Script(name, seed)
    for part in _PARTS[name]:
        part(script)
    return script.workload()
