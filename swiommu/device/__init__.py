"""Devices: what sits on a bus, drives addresses and knows nothing of who translates them.

`BusDevice` is the plain one; `FrameGrabber` and `GrabberDriver` are the smallest pair of a device and its driver. A
device reaches memory only through the domain that it is attached to. No domain is made here, nothing is mapped
but by drivers.
"""

from swiommu.device.bus_device import BusDevice
from swiommu.device.grabber import FrameGrabber, GrabberDriver

__all__ = ["BusDevice", "FrameGrabber", "GrabberDriver"]
