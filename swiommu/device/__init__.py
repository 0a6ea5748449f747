"""Devices: what sits on a bus, drives addresses and knows nothing of who translates them.

`BusDevice` is the plain one; `FrameGrabber` and `GrabberDriver` are the smallest pair of a device and its driver, over
a domain; `Camera` fetches its orders from memory, and `CameraDriver` knows only the DMA API. A device reaches memory
only through the domain that it is attached to, or the bus that it sits on. No domain is made here, nothing is
mapped but by drivers.
"""

from swiommu.device.bus_device import Bus, BusDevice
from swiommu.device.camera import Camera, CameraDriver, Stop, line_writes
from swiommu.device.grabber import FrameGrabber, GrabberDriver

__all__ = ["Bus", "BusDevice", "Camera", "CameraDriver", "FrameGrabber", "GrabberDriver", "Stop", "line_writes"]
