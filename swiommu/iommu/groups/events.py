"""What happens to groups and domains, as the kernel's tracepoints tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.pagetable import DataPageWrite

__all__ = ["GroupEvent", "Listener"]


@attrs.frozen
class GroupEvent:
    """One event: the tracepoint's ``name``, the ``device``, and ``text``, to the letter as ftrace prints it.

    What only a model sees (`data_page_write`) has a name and a text of its own.

    >>> print(GroupEvent.add("nic", 3))
    add_device_to_group: IOMMU: groupID=3 device=nic
    """

    name: str
    device: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"

    @classmethod
    def add(cls, device: str, group: int) -> GroupEvent:
        """A device has become a member."""
        return cls("add_device_to_group", device, f"IOMMU: groupID={group} device={device}")

    @classmethod
    def remove(cls, device: str, group: int) -> GroupEvent:
        """A device is no member any more."""
        return cls("remove_device_from_group", device, f"IOMMU: groupID={group} device={device}")

    @classmethod
    def attach(cls, device: str) -> GroupEvent:
        """A device has another domain."""
        return cls("attach_device_to_domain", device, f"IOMMU: device={device}")

    @classmethod
    def fault(cls, driver: str, device: str, iova: int, flags: int) -> GroupEvent:
        """An access was refused."""
        return cls("io_page_fault", device, f"IOMMU:{driver} {device} iova=0x{iova:016x} flags=0x{flags:04x}")

    @classmethod
    def data_page_write(cls, device: str, write: DataPageWrite) -> GroupEvent:
        """An unmap at which a kernel corrupts data; no tracepoint tells of it."""
        return cls("data_page_write", device, f"IOMMU: device={device} {write}")


Listener: TypeAlias = "Callable[[GroupEvent], None]"
