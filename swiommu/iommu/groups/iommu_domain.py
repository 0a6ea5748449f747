"""What a kernel's core keeps of a domain (``struct iommu_domain``): its type, who made it, whose cookie hangs on it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from swiommu.address import Access, as_integer, as_number
from swiommu.errors import AlreadyThere, InvalidArgument
from swiommu.iommu.groups.events import GroupEvent
from swiommu.iommu.groups.types import Cookie, DomainType, Geometry
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from swiommu.address import BusAddr
    from swiommu.iommu import Attachable, Domain
    from swiommu.iommu.groups.translation import Translation
    from swiommu.iommu.groups.untracked_iova import UntrackedIova
    from swiommu.layer import Fault
    from swiommu.pagetable import DataPageWrite
    from swiommu.profile import Profile

    FaultHandler: TypeAlias = "Callable[[Domain[Any], Attachable, int, int, object], int]"

__all__ = ["FAULT_READ", "FAULT_WRITE", "IommuDomain", "free_domain", "name_of", "record_of", "report_fault"]

FAULT_READ, FAULT_WRITE = 0, 1
_ENOSYS = 38
_log = logging.getLogger(__name__)


class Owner(Protocol):
    """What the core asks of the IOMMU that made a domain; see `swiommu.iommu.groups.Hardware` for the fields."""

    name: str
    profile: Profile
    translation: Translation
    sync_map: Callable[[Domain[Any], int, int], None] | None


class IommuDomain:
    """The record that the core keeps of ``domain``, as its attribute ``kernel``: what only the core knows of it.

    ``type`` is its type, ``owner`` the IOMMU that made it. ``pgsize_bitmap`` is 0 where nothing can be mapped;
    ``geometry`` says which bus addresses there are, and ``iova`` chooses among them, if anybody does. `Hardware.alloc`
    makes both, the domain and its record.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu.groups import DomainType, Hardware
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram", width=40)
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> record = smmu.alloc(DomainType.UNMANAGED).kernel
    >>> record, hex(record.pgsize_bitmap), hex(record.geometry.aperture_end)
    (IommuDomain(Unmanaged of 'smmu'), '0x40201000', '0xffffffffffff')
    """

    __copy__ = no_shallow_copy

    def __init__(
        self, kind: DomainType, domain: Domain[Any], owner: Owner, *, iova: UntrackedIova | None = None
    ) -> None:
        self.type = kind
        self.domain = domain
        self.owner = owner
        self.iova = iova
        self.pgsize_bitmap = domain.pgsize_bitmap if kind.paging else 0
        self.geometry = Geometry(domain.aperture_first, domain.aperture_last, True) if kind.paging else Geometry()
        self.cookie = Cookie.NONE
        self._handler: FaultHandler | None = None
        self._token: object = None
        self._asking: Attachable | None = None
        domain.node.handlers.append(self._on_fault)
        domain.on_data_page_write.append(self._on_data_page_write)

    def __repr__(self) -> str:
        return f"IommuDomain({self.type.log_name} of {self.owner.name!r})"

    def take_cookie(self, cookie: Cookie) -> None:
        """Hang private data of that kind on it; `AlreadyThere` if there is some, of whatever kind.

        Source: ``iommu_get_dma_cookie``, ``iommu_get_msi_cookie``.
        """
        if self.cookie is not Cookie.NONE:
            raise AlreadyThere(f"{self!r} has a cookie of kind {self.cookie.value} already")
        self.cookie = cookie

    def set_fault_handler(self, handler: FaultHandler, token: object = None) -> bool:
        """Let ``handler(domain, device, iova, flags, token)`` answer for faults; whether it was taken.

        A domain with a cookie of another kind ignores it, with a warning; that of a kernel before 6.15 takes it all the
        same.
        Source: ``iommu_set_fault_handler``.
        """
        if not self.owner.profile.fault_handler_replaces_cookie:
            if self.cookie not in {Cookie.NONE, Cookie.FAULT_HANDLER}:
                _log.warning("%r ignores a fault handler: it has a cookie of kind %s", self, self.cookie.value)
                return False
            self.cookie = Cookie.FAULT_HANDLER
        self._handler, self._token = handler, token
        return True

    def answer_fault(self, device: Attachable, iova: int, flags: int) -> int:
        """What the handler says of a fault; -ENOSYS without one."""
        return -_ENOSYS if self._handler is None else self._handler(self.domain, device, iova, flags, self._token)

    @contextmanager
    def asked_by(self, device: Attachable) -> Iterator[None]:
        """What is refused inside was an access of ``device``: its faults are reported as of that one."""
        before, self._asking = self._asking, device
        try:
            yield
        finally:
            self._asking = before

    def _on_fault(self, fault: Fault) -> None:
        # The layer's owner is told of every fault; who asks by `translate` alone is no device.
        if self._asking is not None:
            own = fault.address is not None and fault.layer == self.domain.node.name
            iova = fault.address if own and fault.address is not None else fault.iova
            report_fault(self.domain, self._asking, iova, FAULT_WRITE if fault.access & Access.WRITE else FAULT_READ)

    def _on_data_page_write(self, write: DataPageWrite) -> None:
        groups = {device.group: device for device in self.domain.devices if device.group is not None}
        for group, device in groups.items():
            group.tell(GroupEvent.data_page_write(device.name, write))


def record_of(domain: Domain[Any]) -> IommuDomain:
    """What the core keeps of ``domain``; `InvalidArgument` if it keeps nothing, as no IOMMU of its made it.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu.groups import IdentityDomain
    >>> record_of(IdentityDomain(BusSpace("pci", width=48), PhysSpace("ram")))
    Traceback (most recent call last):
    ...
    swiommu.errors.InvalidArgument: the domain of 'pci' was made by no IOMMU of a kernel's core
    """
    record: IommuDomain | None = domain.kernel
    if record is None:
        raise InvalidArgument(f"the domain of {domain.input_space.name!r} was made by no IOMMU of a kernel's core")
    return record


def name_of(domain: Domain[Any] | None) -> str:
    """How errors call a domain that the core has made, or that there is none."""
    return "None" if domain is None else repr(record_of(domain))


def free_domain(domain: Domain[Any]) -> None:
    """Unmap what was mapped by hand, and give up its tables; static domains stay. Source: ``iommu_domain_free``.

    `Busy` while devices are attached, the DMA API's mappings live, or others stand on it.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu.groups import DomainType, Hardware
    >>> from swiommu.memory import Frames
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> smmu = Hardware(name="smmu", bus=bus, ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> domain = smmu.alloc(DomainType.UNMANAGED)
    >>> domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x1000)
    >>> free_domain(domain); domain.destroyed, smmu.frames.free_count
    (True, 256)
    """
    if not record_of(domain).type.paging:
        return
    if not (domain.devices or domain.mappings() or domain.node.uppers):
        for start, stop in domain.mapped():
            domain.unmap(domain.input_space.at(start), stop - start)
    domain.destroy()


def report_fault(domain: Domain[Any], device: Any, iova: BusAddr | int, flags: int) -> int:
    """Tell the handler of ``domain``; its answer, or -ENOSYS. Then the event ``io_page_fault``, either way.

    An IOMMU's driver calls it; accesses of a device in a group do it by themselves. Source: ``report_iommu_fault``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Hardware, IommuCore
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, core = PhysSpace("ram", width=40), IommuCore()
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> nic = BusDevice("nic", SparseRam(ram))
    >>> group = core.probe(nic, smmu, driver="e1000")
    >>> core.listeners.append(print)
    >>> report_fault(group.domain, nic, 0x1000, 1)
    io_page_fault: IOMMU:e1000 nic iova=0x0000000000001000 flags=0x0001
    -38
    """
    iova, flags = as_number(iova, domain.input_space, "iova"), as_integer(flags, "flags")
    answer = record_of(domain).answer_fault(device, iova, flags)
    group = device.group
    if group is not None:
        group.tell(GroupEvent.fault(group.member(device).driver, device.name, iova, flags))
    return answer
