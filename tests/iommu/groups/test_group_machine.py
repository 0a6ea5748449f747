"""Groups under random calls: attaching, owners, drivers, devices that come and go, beside a twin of a few names."""

from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swiommu.address import BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import Busy, DeviceFault, InvalidArgument, NoMemory, NotPermitted, SwiommuError
from swiommu.iommu.groups import (
    Defaults,
    DomainType,
    Hardware,
    IommuCore,
    claim_device,
    claim_group,
    free_domain,
    map_range,
    release_device,
    release_group,
    unuse_default_domain,
    use_default_domain,
)
from swiommu.memory import Frames, SparseRam
from swiommu.region import Region

NAMES = ("a", "b", "c")
OWNERS = ("vfio", "iommufd")


class GroupMachine(RuleBasedStateMachine):
    """``where`` is the word for the domain of the group; ``owner`` and ``count`` say who uses it, how often."""

    OTHER = "identity"  # what the group can be attached to beside an unmanaged domain
    READS: ClassVar = {"mine": b"mine", "identity": b"same"}

    def __init__(self):
        super().__init__()
        ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
        self.ram = SparseRam(ram)
        self.frames = Frames(ram.at(0x4000_0000), 1 << 20)
        self.hardware = self.made(ram, bus)
        self.core = IommuCore(Defaults(strict=True))
        self.devices = {name: BusDevice(name, self.ram, dma_mask=(1 << 48) - 1) for name in NAMES}
        self.group = self.core.probe(self.devices["a"], self.hardware)
        self.members = ["a"]
        self.mine = self.hardware.alloc(DomainType.UNMANAGED)
        map_range(self.mine, 0x1000, self.PLACE, 0x1000, 3)
        self.ram.write(ram.at(self.PLACE), b"mine")
        self.ram.write(ram.at(0x1000), b"same")
        self.domains = {"mine": self.mine, self.OTHER: self.other()}
        self.where, self.owner, self.count = "default", None, 0

    PLACE = 0x5000_0000  # what `mine` maps

    def made(self, ram, bus):
        return Hardware(name="smmu", bus=bus, ram=ram, frames=self.frames, grouping="iommu")

    def other(self):
        return self.hardware.identity_domain

    def given_back(self):
        assert self.frames.free_count == 256

    def expect(self, error, call, *arguments):
        raised = None
        try:
            call(*arguments)
        except SwiommuError as refusal:
            raised = type(refusal)
        assert raised is error
        return raised is None

    @rule(name=st.sampled_from(NAMES))
    def come(self, name):
        self.core.probe(self.devices[name], self.hardware)
        if name not in self.members:
            self.members.append(name)

    @precondition(lambda self: len(self.members) > 1)
    @rule(data=st.data())
    def go(self, data):
        name = data.draw(st.sampled_from(self.members))
        self.core.release(self.devices[name])
        self.members.remove(name)

    def attach_error(self, word):
        return None if self.where in {"default", "blocked"} else Busy

    @rule(word=st.sampled_from(["mine", "other"]), fails=st.none() | st.integers(1, 3))
    def attach_group(self, word, fails):
        word = self.OTHER if word == "other" else word
        error = self.attach_error(word)
        if error is None and fails is not None and fails <= len(self.members):
            self.hardware.fail_nth(fails, NoMemory("no context"))
            error = NoMemory
        if self.expect(error, self.group.attach_group, self.domains[word]):
            self.where = word

    @rule(word=st.sampled_from(["mine", "other"]), data=st.data())
    def attach_device(self, word, data):
        word = self.OTHER if word == "other" else word
        name = data.draw(st.sampled_from(self.members))
        error = InvalidArgument if len(self.members) > 1 else self.attach_error(word)
        if self.expect(error, self.group.attach_device, self.domains[word], self.devices[name]):
            self.where = word

    @rule()
    def detach_group(self):
        self.group.detach_group()
        self.where = "default" if self.owner is None else "blocked"

    @rule(data=st.data())
    def detach_device(self, data):
        self.group.detach_device(self.devices[data.draw(st.sampled_from(self.members))])
        if len(self.members) == 1:
            self.where = "default" if self.owner is None else "blocked"

    @rule(data=st.data())
    def bind(self, data):
        busy = self.owner is not None or self.where != "default"
        device = self.devices[data.draw(st.sampled_from(self.members))]
        self.count += self.expect(Busy if busy else None, use_default_domain, device)

    @rule(data=st.data())
    def unbind(self, data):
        unuse_default_domain(self.devices[data.draw(st.sampled_from(self.members))])
        if self.owner is None and self.count:
            self.count -= 1

    def claim(self, error, owner, call, what):
        if self.expect(error, call, what, owner):
            if self.owner is None:
                self.where, self.owner = "blocked", owner
            self.count += 1

    def take_error(self):
        return None if self.where == "default" else Busy

    @rule(owner=st.sampled_from(OWNERS), data=st.data())
    def claim_by_device(self, owner, data):
        device = self.devices[data.draw(st.sampled_from(self.members))]
        error = self.take_error() if not self.count else None if self.owner == owner else NotPermitted
        self.claim(error, owner, claim_device, device)

    @rule(owner=st.sampled_from(OWNERS))
    def claim_whole(self, owner):
        self.claim(NotPermitted if self.count else self.take_error(), owner, claim_group, self.group)

    @precondition(lambda self: self.owner is not None)
    @rule(data=st.data(), whole=st.booleans())
    def release(self, data, whole):
        if whole:
            release_group(self.group)
        else:
            release_device(self.devices[data.draw(st.sampled_from(self.members))])
        if whole or self.count == 1:
            self.where, self.owner, self.count = "default", None, 0
        else:
            self.count -= 1

    @invariant()
    def accesses_tell_where_it_is(self):
        reached = self.READS.get(self.where)
        for name, device in self.devices.items():
            if name not in self.members:
                assert (device.group, device.domain) == (None, None)
                continue
            try:
                assert device.read(self.hardware.bus.at(0x1000), 4) == reached
            except DeviceFault:
                assert reached is None

    @invariant()
    def counts_agree(self):
        self.group.check()
        assert (self.group.owner, self.group.owner_cnt) == (self.owner, self.count)
        assert [member.device.name for member in self.group.members] == self.members

    def teardown(self):
        release_group(self.group)
        self.group.detach_group()
        self.group.owner_cnt = 0
        for name in self.members:
            self.core.release(self.devices[name])
        for domain in self.domains.values():
            free_domain(domain)
        self.given_back()


class StackedGroupMachine(GroupMachine):
    """The same on the domain of another IOMMU, which maps both places at the same numbers."""

    def made(self, ram, bus):
        host = Hardware(name="host", bus=BusSpace("ipa", width=40), ram=ram, frames=self.frames)
        self.lower = host.alloc(DomainType.DMA)
        for place in (0x1000, self.PLACE):
            map_range(self.lower, place, place, 0x1000, 3)
        self.held = self.frames.free_count
        return Hardware(name="smmu", bus=bus, below=self.lower, grouping="iommu")

    def given_back(self):
        assert self.lower.mappings() == []
        assert self.frames.free_count >= self.held


class UntranslatedGroupMachine(GroupMachine):
    """The same where nothing is translated: a device reaches its window at any time."""

    OTHER = "second"
    PLACE = 0x5000_1000
    READS = dict.fromkeys(["mine", "second", "default", "blocked"], b"mine")

    def made(self, ram, bus):
        self.region = Region(ram.at(0x5000_0000), 1 << 20)
        return Hardware(name="soc", bus=bus, region=self.region, delta=-0x5000_0000)

    def other(self):
        return self.hardware.alloc(DomainType.UNMANAGED)

    def given_back(self):
        assert self.region.users == 0


TestGroups = GroupMachine.TestCase
TestStackedGroups = StackedGroupMachine.TestCase
TestUntranslatedGroups = UntranslatedGroupMachine.TestCase
TestGroups.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestStackedGroups.settings = TestUntranslatedGroups.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None
)
