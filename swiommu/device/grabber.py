"""The smallest pair of a device and its driver: a frame grabber, and code that runs on every kind of domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.device.bus_device import BusDevice
from swiommu.errors import NoDevice

if TYPE_CHECKING:
    from swiommu.address import BusAddr

__all__ = ["FrameGrabber", "GrabberDriver"]


class FrameGrabber(BusDevice):
    """Writes frames to where it is told; frame ``n`` is a pattern that differs from that of every near ``n``.

    >>> FrameGrabber.pattern(1, 4).hex()
    '1d3a5774'
    """

    frames = 0

    @staticmethod
    def pattern(number: int, size: int) -> bytes:
        """The ``size`` bytes of frame ``number``: period 251, so that shifted pages do not look alike."""
        period = bytes((29 * number * (place + 1)) % 251 for place in range(251))
        return (period * (size // 251 + 1))[:size]

    def capture(self, addr: BusAddr, size: int) -> int:
        """Write the next frame of ``size`` bytes to ``addr``; its number. Raises what `BusDevice.write` raises."""
        self.frames += 1
        self.write(addr, self.pattern(self.frames, size))
        return self.frames


class GrabberDriver:
    """A driver that knows the API and nothing of what is below: allocate, let the device write, read back, free.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames, SparseRam
    >>> space, bus = PhysSpace("ram", width=32), BusSpace("camera", width=32)
    >>> camera = FrameGrabber("camera", SparseRam(space))
    >>> PagedDomain(bus, frames=Frames(space.at(0x4000_0000), 1 << 20), output_space=space).attach(camera)
    >>> GrabberDriver(camera).grab(10_000) == FrameGrabber.pattern(1, 10_000)
    True
    """

    def __init__(self, device: FrameGrabber) -> None:
        self.device = device

    def grab(self, size: int) -> bytes:
        """One frame of ``size`` bytes. Raises `NoDevice` without a domain, and what ``alloc`` of the domain raises."""
        device = self.device
        domain = device.domain
        if domain is None:
            raise NoDevice(f"device {device.name!r} is not attached to a domain")
        buffer = domain.alloc(size)
        try:
            device.capture(buffer.iova.start, size)
            # The processor's view: the pieces of memory, in the order in which the device sees them.
            return b"".join(device.ram.read(piece.start, piece.size) for piece in buffer.memory)[:size]
        finally:
            domain.release(buffer)
