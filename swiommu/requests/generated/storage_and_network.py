"""Network cards and disks: rings once, then a churn of short mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE
from swiommu.requests.generated.script import MASK_64, SECOND

if TYPE_CHECKING:
    from swiommu.requests.generated.script import Script

__all__ = ["nic", "nvme"]

_RX_RING = 256
_RX_BUFFER = 2048  # half a page each
_PACKETS = 3_000
_QUEUES = 4
_DEPTH = 1024
_COMMANDS = 3_000


def nic(script: Script) -> None:
    """Rings of 16-byte descriptors; receive buffers are half pages renewed in turn, sends are bursts in pieces."""
    for _ in range(2):
        script.alloc("nic", 4096 * 16, begin=0, end=script.duration + 1, mask=MASK_64)
    step = script.duration // _PACKETS
    for packet in range(_PACKETS):
        now = packet * step
        page = script.anywhere()
        half = page + _RX_BUFFER * (packet % 2)
        script.map("nic", ((half, _RX_BUFFER),), begin=now, end=now + _RX_RING * step, direction="FROM_DEVICE")
        if packet % 3 == 0:
            sent = now + script.pause(0.0005)
            script.map("nic", _send(script), begin=now + 1, end=sent, direction="TO_DEVICE")


def _send(script: Script) -> tuple[tuple[int, int], ...]:
    """One packet to send: a header anywhere in a page, then up to 16 pieces of payload."""
    header = (script.anywhere() + script.random.randrange(0, PAGE_SIZE - 128, 64), script.random.randint(54, 128))
    payload = [
        (script.anywhere(), script.random.randint(64, PAGE_SIZE)) for _ in range(script.random.choice((0, 1, 1, 2, 16)))
    ]
    return (header, *payload)


def nvme(script: Script) -> None:
    """Queues of 64 and 16 bytes an entry; commands of 4 KiB to 2 MiB over scattered pages, lists in whole pages."""
    for _ in range(_QUEUES):
        script.alloc("nvme", 64 * _DEPTH, begin=0, end=script.duration + 1, mask=MASK_64)
        script.alloc("nvme", 16 * _DEPTH, begin=0, end=script.duration + 1, mask=MASK_64)
    now = 0
    for _ in range(_COMMANDS):
        now += script.pause(script.duration / SECOND / _COMMANDS)
        if now >= script.duration:
            return
        size = PAGE_SIZE << script.random.choice((0, 0, 0, 1, 2, 3, 5, 9))
        direction = script.random.choice(("FROM_DEVICE", "FROM_DEVICE", "TO_DEVICE"))
        pieces = script.pages(size, longest=32 if size > 8 * PAGE_SIZE else 1)
        script.map("nvme", pieces, begin=now, end=now + script.pause(0.002), direction=direction)
