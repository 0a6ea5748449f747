"""One IOMMU and its driver: what it can do, what it asks for, and the domains that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from swiommu.address import Prot
from swiommu.errors import InvalidArgument, NoDevice, NotSupported, SwiommuError
from swiommu.iommu.groups.fixed import BlockedDomain, IdentityDomain
from swiommu.iommu.groups.iommu_domain import IommuDomain
from swiommu.iommu.groups.translation import LinearTranslation, PagedTranslation
from swiommu.iommu.groups.types import Capability, DomainType, Hwpt
from swiommu.iommu.iova import LinuxIova
from swiommu.locking import no_shallow_copy
from swiommu.pagetable import MOCK
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.address import AddressRange, BusSpace, PhysSpace
    from swiommu.iommu import Attachable, Domain
    from swiommu.iommu.groups.translation import Translation
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format
    from swiommu.region import Region

__all__ = ["GROUPINGS", "Hardware", "format_capabilities"]

GROUPINGS: Final = ("pci", "device", "iommu")
# What a bus may have without translation: neither keeps a device from anything.
_WITHOUT_TRANSLATION = frozenset({Capability.CACHE_COHERENCY, Capability.PCI_ATS_SUPPORTED})
# What a driver's attach may answer; the core takes everything else for ENODEV.
_ANSWERS = {"EINVAL": 22, "ENOMEM": 12, "ENOSPC": 28, "EBUSY": 16, "ENODEV": 19}


def _one_of(words: tuple[str, ...]) -> Any:
    def validate(_: object, attribute: attrs.Attribute[str], word: str) -> None:
        if word not in words:
            raise InvalidArgument(f"no {attribute.name} {word!r}: there are {', '.join(words)}")

    return validate


def format_capabilities(form: Format) -> frozenset[Capability]:
    """What an IOMMU can do because its page tables can say it; what firmware and devices decide is not among it.

    Source: ``intel_iommu_capable``, ``amd_iommu_capable``, ``arm_smmu_capable``.

    >>> from swiommu.pagetable.formats import amd_v1, arm_lpae
    >>> sorted(capability.name for capability in format_capabilities(amd_v1()))
    ['CACHE_COHERENCY', 'DEFERRED_FLUSH', 'ENFORCE_CACHE_COHERENCY']
    >>> sorted(capability.name for capability in format_capabilities(arm_lpae()))
    ['CACHE_COHERENCY', 'DEFERRED_FLUSH', 'NOEXEC']
    """
    found = {Capability.CACHE_COHERENCY, Capability.DEFERRED_FLUSH}
    if form.coherent is not None:
        found.add(Capability.ENFORCE_CACHE_COHERENCY)
    if form.effective(Prot.READ | Prot.NOEXEC) & Prot.NOEXEC:
        found.add(Capability.NOEXEC)
    return frozenset(found)


@attrs.define(eq=False, kw_only=True)
class Hardware:
    """An IOMMU that devices on ``bus`` reach memory through, or a bus that has none.

    With ``frames`` of ``ram`` it translates: page tables come from these. On a domain ``below``, of another IOMMU, it
    translates into the bus space of that one; tables come from there, or from ``frames`` if there are some.
    With a ``region`` it translates nothing: the bus shows ``window`` of memory (default: the region) at its addresses
    plus ``delta``, and domains take memory from the region. Of these it enforces nothing, so that it has no identity or
    blocked domain, no capabilities beyond coherency and ATS, and all its devices are one group.

    ``format`` is that of its paging domains. ``demands``: the default domain type that a device, by name, must have.
    ``identity``, ``blocked``: whether there are static domains of these types; ``paging``: whether there are others.
    ``hwpt``: what may be asked of a paging domain, ``knows_pasids``: whether PASIDs can have domains.
    ``capabilities``: see `capable`; by default those of the format (`format_capabilities`), and dirty tracking if
    ``hwpt`` has it. ``grouping``: devices get groups by the rules of PCI, one each ("device"), or all the same
    ("iommu"). ``profile``: the kernel whose answers these are, by default the format's. ``policy`` makes what chooses
    addresses for the DMA API; by default that of Linux, whose ``pci`` and ``forcedac`` are set by who is in the group
    and by the command line. ``walker_mask``: the highest address that it reads tables at. ``sync_map``,
    ``attach_hook``: what the hardware does beside, and may refuse by raising. Errors: `InvalidArgument` for a word that
    is none, for sources of memory that don't go together, and for what needs translation where there is none.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.memory import Frames
    >>> from swiommu.region import Region
    >>> ram = PhysSpace("ram", width=40)
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> smmu.alloc(DomainType.UNMANAGED).kernel.type.log_name, smmu.identity_domain.kernel.type.log_name
    ('Unmanaged', 'Passthrough')
    >>> guest = Hardware(name="vsmmu", bus=BusSpace("guest", width=40), below=smmu.alloc(DomainType.DMA))
    >>> guest.alloc(DomainType.UNMANAGED).below.input_space.name
    'pci'
    >>> none = Hardware(name="soc", bus=BusSpace("soc", width=32), region=Region(ram.at(0x4000_0000), 1 << 20))
    >>> none.alloc(DomainType.UNMANAGED).enforces, none.blocked_domain, sorted(none.capabilities)
    (False, None, [])
    """

    __copy__ = no_shallow_copy

    name: str
    bus: BusSpace
    ram: PhysSpace | None = None
    frames: Frames | None = None
    below: Domain[Any] | None = None
    region: Region[Any] | None = None
    window: AddressRange[Any] | None = None
    delta: int = 0
    memory: Node | None = None
    format: Format | None = attrs.Factory(lambda self: MOCK if self.region is None else None, takes_self=True)
    profile: Profile = attrs.field(converter=profile_of)
    grouping: str = attrs.field(validator=_one_of(GROUPINGS))
    hwpt: Hwpt = attrs.field()
    capabilities: frozenset[Capability] = attrs.field(converter=frozenset)
    not_coherent: frozenset[str] = attrs.field(default=frozenset(), converter=frozenset)
    demands: dict[str, DomainType] = attrs.field(factory=dict)
    identity: bool = attrs.field()
    blocked: bool = attrs.field()
    paging: bool = True
    knows_pasids: bool = attrs.field()
    policy: Callable[[], IovaPolicy] = LinuxIova
    walker_mask: int | None = None
    sync_map: Callable[[Domain[Any], int, int], None] | None = None
    attach_hook: Callable[[Domain[Any], Attachable], None] | None = None
    identity_domain: Domain[Any] | None = attrs.field(default=None, init=False)
    blocked_domain: Domain[Any] | None = attrs.field(default=None, init=False)
    group: Any = attrs.field(default=None, init=False)
    translation: Translation = attrs.field(init=False)
    _countdown: int = attrs.field(default=0, init=False)
    _failure: SwiommuError | None = attrs.field(default=None, init=False)

    @profile.default
    def _profile(self) -> Profile:
        return DEFAULT_PROFILE if self.format is None else self.format.profile

    @grouping.default
    def _grouping(self) -> str:
        return "device" if self.region is None else "iommu"

    @hwpt.default
    def _hwpt(self) -> Hwpt:
        return Hwpt.PASID if self.region is None else Hwpt.NONE

    @capabilities.default
    def _capabilities(self) -> frozenset[Capability]:
        if self.format is None:
            return frozenset()
        dirty = {Capability.DIRTY_TRACKING} if self.hwpt & Hwpt.DIRTY_TRACKING else set()
        return format_capabilities(self.format) | dirty

    @identity.default
    @blocked.default
    @knows_pasids.default
    def _translates(self) -> bool:
        return self.region is None

    def __attrs_post_init__(self) -> None:
        self.translation = PagedTranslation(self) if self.region is None else self._linear(self.region)
        output = self.translation.output_space
        if self.identity:
            self.identity_domain = IdentityDomain(self.bus, output, memory=self.memory, below=self.below)
            self.identity_domain.kernel = IommuDomain(DomainType.IDENTITY, self.identity_domain, self)
        if self.blocked:
            self.blocked_domain = BlockedDomain(self.bus, output, memory=self.memory, below=self.below)
            self.blocked_domain.kernel = IommuDomain(DomainType.BLOCKED, self.blocked_domain, self)

    def _linear(self, region: Region[Any]) -> Translation:
        wrong = {
            "frames": self.frames is not None,
            f"a page table format {getattr(self.format, 'name', None)!r}": self.format is not None,
            f"a walker that reads tables up to {self.walker_mask or 0:#x}": self.walker_mask is not None,
            f"groups by {self.grouping!r}": self.grouping != "iommu",
            f"flags {int(self.hwpt):#x} of a domain": self.hwpt != Hwpt.NONE,
            "an identity domain": self.identity,
            "a blocked domain": self.blocked,
            "PASIDs": self.knows_pasids,
            ", ".join(sorted(each.name for each in self.capabilities - _WITHOUT_TRANSLATION)): (
                not self.capabilities <= _WITHOUT_TRANSLATION
            ),
        }
        for what, given in wrong.items():
            if given:
                raise InvalidArgument(f"IOMMU {self.name!r} translates nothing: it can't have {what}")
        return LinearTranslation(self, region)

    def capable(self, device: Attachable, capability: Capability) -> bool:
        """Whether it can do that for ``device``; coherency can't be enforced for those that are ``not_coherent``."""
        if capability is Capability.ENFORCE_CACHE_COHERENCY and device.name in self.not_coherent:
            return False
        return capability in self.capabilities

    @property
    def deferred_flush(self) -> bool:
        """Whether invalidations may wait: by the capability, and always with the generic page table."""
        if self.format is None:
            return False
        return Capability.DEFERRED_FLUSH in self.capabilities or self.format.rules.name.startswith("generic_pt")

    def alloc(self, kind: DomainType, flags: int = Hwpt.NONE) -> Domain[Any]:
        """A new domain, or the static one of that type; ``flags``: bits of `Hwpt`.

        Raises `NotSupported` for what it hasn't and for bits of ``flags`` beyond ``hwpt``, `NoMemory` without a frame
        for the first table that its walker reaches, `InvalidArgument` for a type that is not allocated like this.
        """
        if kind is DomainType.IDENTITY and self.identity_domain is not None:
            return self.identity_domain
        if kind is DomainType.BLOCKED and self.blocked_domain is not None:
            return self.blocked_domain
        if kind in {DomainType.IDENTITY, DomainType.BLOCKED}:
            raise NotSupported(f"IOMMU {self.name!r} has no {kind.log_name.lower()} domain")
        if not kind.paging:
            raise InvalidArgument(f"a domain of type {kind.value:#x} is not made by itself")
        if not self.paging or int(flags) & ~int(self.hwpt):
            raise NotSupported(f"IOMMU {self.name!r} has no paging domains with flags {int(flags):#x}")
        if kind is DomainType.DMA_FQ and not self.deferred_flush:
            kind = DomainType.DMA  # falls back without a word, as dma-iommu does
        own, iova = self.translation.domain(for_dma=kind.dma_api, lazy=kind is DomainType.DMA_FQ)
        own.kernel = IommuDomain(kind, own, self, iova=iova)
        return own

    def attach(self, domain: Domain[Any], device: Attachable) -> None:
        """What the driver does to let ``device`` use ``domain``; raises what `fail_nth` said, or ``attach_hook``.

        An errno that the core does not know comes out as `NoDevice`.
        """
        try:
            if self._countdown:
                self._countdown -= 1
                if not self._countdown and self._failure is not None:
                    raise self._failure
            if self.attach_hook is not None:
                self.attach_hook(domain, device)
        except SwiommuError as error:
            if error.errno in _ANSWERS.values():
                raise
            raise NoDevice(f"IOMMU {self.name!r} can't attach device {device.name!r}: {error}") from error

    def fail_nth(self, n: int, failure: SwiommuError | None = None) -> None:
        """Let the ``n``-th following `attach` (1: the next) raise ``failure`` (default: `InvalidArgument`), once."""
        self._countdown = n
        self._failure = failure or InvalidArgument(f"IOMMU {self.name!r} was told to refuse")

    def __repr__(self) -> str:
        return f"Hardware({self.name!r})"
