"""Groups under random calls: attaching, owners, drivers, devices that come and go, beside a twin of a few names."""

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

NAMES = ("a", "b", "c")
OWNERS = ("vfio", "iommufd")


class GroupMachine(RuleBasedStateMachine):
    """``where`` is the word for the domain of the group; ``owner`` and ``count`` say who uses it, how often."""

    def __init__(self):
        super().__init__()
        ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
        self.ram = SparseRam(ram)
        self.frames = Frames(ram.at(0x4000_0000), 1 << 20)
        self.hardware = Hardware(name="smmu", bus=bus, ram=ram, frames=self.frames, grouping="iommu")
        self.core = IommuCore(Defaults(strict=True))
        self.devices = {name: BusDevice(name, self.ram, dma_mask=(1 << 48) - 1) for name in NAMES}
        self.group = self.core.probe(self.devices["a"], self.hardware)
        self.members = ["a"]
        self.mine = self.hardware.alloc(DomainType.UNMANAGED)
        map_range(self.mine, 0x1000, 0x5000_0000, 0x1000, 3)
        self.ram.write(ram.at(0x5000_0000), b"mine")
        self.ram.write(ram.at(0x1000), b"same")
        self.domains = {"mine": self.mine, "identity": self.hardware.identity_domain}
        self.where, self.owner, self.count = "default", None, 0

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

    @rule(word=st.sampled_from(["mine", "identity"]), fails=st.none() | st.integers(1, 3))
    def attach_group(self, word, fails):
        error = self.attach_error(word)
        if error is None and fails is not None and fails <= len(self.members):
            self.hardware.fail_nth(fails, NoMemory("no context"))
            error = NoMemory
        if self.expect(error, self.group.attach_group, self.domains[word]):
            self.where = word

    @rule(word=st.sampled_from(["mine", "identity"]), data=st.data())
    def attach_device(self, word, data):
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
        reached = {"mine": b"mine", "identity": b"same"}.get(self.where)
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
        free_domain(self.mine)
        assert self.frames.free_count == 256


TestGroups = GroupMachine.TestCase
TestGroups.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
