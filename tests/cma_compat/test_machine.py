"""The shim under random calls, beside a twin that knows pages and nothing else.

Two regions lie in memory, two in the bus space of a domain with fewer frames than addresses. The twin says which
region serves, which error comes, what is free; where a chunk lies is checked against its pages and then believed.
Every chunk is stamped by a device, and read back through every view and by the processor.
"""

import errno

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cma_compat import CmaContext, CmaInfo, cma_device, cma_region, errno_of
from swiommu.address import BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.iommu import PagedDomain
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import CountingTables
from swiommu.region import allocator_names

PAGE = 4096
BASE = 0x4000_0000
FRAMES = 24

sizes = st.integers(0, 9 * PAGE) | st.integers(0, 9).map(lambda pages: pages * PAGE)
alignments = st.sampled_from([0, 1, PAGE, 2 * PAGE, 4 * PAGE, 16 * PAGE, 3, -PAGE])
lists = st.sampled_from(["m0", "m0,m1", "s0,m1", "nobody,s1,s0", "m1,s1,m0,s0", ""])
names = st.sampled_from(["plain", "cam", "enc"])
numbers = st.integers(BASE, BASE + 30 * PAGE) | st.integers(-1, 2**64)
numbers |= st.integers(0, 31).map(lambda page: BASE + page * PAGE)
maps = {"": {}, "cam=m0,s0;*/b=s1,m1": {"cam": "m0,s0", "*b": "s1,m1"}, "*=s0,m1": {"*": "s0,m1"}}


class Shim(RuleBasedStateMachine):
    alloc_name = None

    def __init__(self):
        super().__init__()
        self.space = PhysSpace("ram", width=40)
        self.ram = SparseRam(self.space)
        self.frames = Frames(self.space.at(0x8000_0000), FRAMES * PAGE)
        self.cma = CmaContext(memory=self.space)
        self.domain = self.paged("cam", frames=self.frames)
        self.other = self.paged("enc", frames=Frames(self.space.at(0), PAGE))
        self.devices = {"plain": cma_device("plain")}
        for name, domain in (("cam", self.domain), ("enc", self.other)):
            self.devices[name] = BusDevice(name, self.ram)
            domain.attach(self.devices[name])
        self.regions = [
            cma_region(BASE, 16 * PAGE, "m0", self.alloc_name),
            cma_region(BASE + 16 * PAGE, 13 * PAGE, "m1", self.alloc_name),
            cma_region(0x1000_0000, 16 * PAGE, "s0", self.alloc_name, within=self.domain),
            cma_region(0x2000_0000, 16 * PAGE, "s1", self.alloc_name, within=self.domain),
        ]
        self.registered = []  # the twin's: indexes
        self.live = {}  # chunk number -> (region, first page, pages, align, views: {bus space: address}, stamp)
        self.map = ""
        self.count = 0
        for index in range(4):
            self.register(index)

    def paged(self, name, frames):
        space = BusSpace(name, width=32)
        return PagedDomain(space, frames=frames, output_space=self.space, tables=CountingTables())

    # -- the twin

    def taken(self, index):
        return {
            page
            for region, first, pages, *_ in self.live.values()
            if region == index
            for page in range(first, first + pages)
        }

    def frames_free(self):
        return FRAMES - sum(chunk[2] for chunk in self.live.values() if chunk[0] >= 2)

    def can_serve(self, index, pages, align):
        reg, taken = self.regions[index], self.taken(index)
        if index >= 2 and self.frames_free() < pages:
            return False
        return any(
            (reg.start + page * PAGE) % align == 0 and not any(at in taken for at in range(page, page + pages))
            for page in range(reg.size // PAGE - pages + 1)
        )

    def expected(self, indexes, size, align, *, valid=True):
        """The region that has to serve, or a negative errno."""
        if size < 1 or align < 0 or align & (align - 1) or not valid:
            return -errno.EINVAL
        if indexes is None:
            return -errno.ENOENT
        pages, align = -(-size // PAGE), max(align, PAGE)
        return next((index for index in indexes if self.can_serve(index, pages, align)), -errno.ENOMEM)

    def named(self, text):
        by_name = {self.regions[index].name: index for index in self.registered}
        return [by_name[name] for name in text.split(",") if name in by_name]

    def listed(self, device, type_):
        rules = maps[self.map]
        text = rules.get(device) or (rules.get("*b") if type_ == "b" else None) or rules.get("*")
        return None if text is None else self.named(text)

    def served(self, answer, expected, size, align, device):
        if expected < 0:
            assert errno_of(answer) == expected
            return
        assert errno_of(answer) == 0
        reg, pages = self.regions[expected], -(-size // PAGE)
        own = self.cma.bus_address(answer, None)
        first = (own.value - reg.start) // PAGE
        assert not self.taken(expected) & set(range(first, first + pages))
        assert 0 <= first <= reg.size // PAGE - pages
        self.count += 1
        views = {own.space: own, answer.space: answer}
        self.live[self.count] = (expected, first, pages, max(align, PAGE), views, b"%08d" % self.count)
        for address in views.values():
            assert address.value % max(align, PAGE) == 0
        writer = self.devices["cam"] if answer.space is self.domain.input_space else self.devices["enc"]
        seen = self.cma.bus_address(answer, writer)
        views[seen.space] = seen
        writer.write(seen + (pages * PAGE - 8), self.live[self.count][5])

    # -- calls

    @rule(
        device=st.sampled_from(["plain", "cam", "enc"]),
        type_=st.sampled_from([None, "b"]),
        size=sizes,
        align=alignments,
    )
    def alloc(self, device, type_, size, align):
        expected = self.expected(self.listed(device, type_), size, align)
        self.served(self.cma.cma_alloc(self.devices[device], type_, size, align), expected, size, align, device)

    @rule(text=lists, size=sizes, align=alignments)
    def alloc_from(self, text, size, align):
        expected = self.expected(self.named(text), size, align)
        self.served(self.cma.cma_alloc_from(text, size, align), expected, size, align, "plain")

    @rule(index=st.integers(0, 3), size=sizes, align=alignments)
    def alloc_from_region(self, index, size, align):
        expected = self.expected([index], size, align, valid=index in self.registered)
        self.served(self.cma.cma_alloc_from_region(self.regions[index], size, align), expected, size, align, "plain")

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def share(self, data):
        number = data.draw(st.sampled_from(sorted(self.live)))
        views = self.live[number][4]
        name = data.draw(names)
        seen = self.cma.bus_address(data.draw(st.sampled_from(list(views.values()))), self.devices[name])
        assert views.setdefault(seen.space, seen) == seen
        assert seen.value % self.live[number][3] == 0

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data):
        number = data.draw(st.sampled_from(sorted(self.live)))
        views = list(self.live[number][4].values())
        address = data.draw(st.sampled_from(views))
        assert self.cma.cma_free(address) == 0
        del self.live[number]
        assert [self.cma.cma_free(view) for view in views] == [-errno.ENOENT] * len(views)

    @rule(
        value=st.integers(BASE, BASE + 30 * PAGE)
        | st.integers(-1, 2**64)
        | st.integers(0, 31).map(lambda page: BASE + page * PAGE)
    )
    def free_by_number(self, value):
        meant = {number for number, chunk in self.live.items() if value in {view.value for view in chunk[4].values()}}
        code = {0: -errno.ENOENT, 1: 0}.get(len(meant), -errno.EINVAL)
        assert self.cma.cma_free(value) == code
        if code == 0:
            del self.live[meant.pop()]

    @rule(index=st.integers(0, 3))
    def register(self, index):
        code = self.cma.cma_region_register(self.regions[index])
        assert code == (-errno.EADDRINUSE if index in self.registered else 0)
        if code == 0:
            self.registered.append(index)

    @rule(index=st.integers(0, 3))
    def unregister(self, index):
        busy = any(chunk[0] == index for chunk in self.live.values())
        known = index in self.registered
        assert self.cma.cma_region_unregister(self.regions[index]) == (
            -errno.EINVAL if not known else -errno.EBUSY if busy else 0
        )
        if known and not busy:
            self.registered.remove(index)

    @rule(text=st.sampled_from([*maps, "=x"]))
    def set_map(self, text):
        assert self.cma.cma_set_defaults(None, text) == (-errno.EINVAL if text == "=x" else 0)
        self.map = self.map if text == "=x" else text

    @rule(text=lists)
    def info(self, text):
        info = CmaInfo()
        assert self.cma.cma_info_about(info, text) == 0
        found = [self.regions[index] for index in self.named(text)]
        assert (info.total_size, info.count) == (sum(reg.size for reg in found), len(found))
        assert info.lower_bound == min((reg.start for reg in found), default=2**64 - 1)
        assert info.upper_bound == max((reg.start + reg.size for reg in found), default=0)

    # -- what always holds

    @invariant()
    def accounts(self):
        self.cma.check()
        self.domain.check()
        self.other.check()
        assert self.frames.free_count == self.frames_free()
        for index, reg in enumerate(self.regions):
            taken = self.taken(index)
            assert (reg.registered, reg.users) == (
                index in self.registered,
                sum(chunk[0] == index for chunk in self.live.values()),
            )
            assert reg.free_space == reg.size - len(taken) * PAGE

    @invariant()
    def bytes_are_where_everybody_sees_them(self):
        by_space = {self.domain.input_space: self.devices["cam"], self.other.input_space: self.devices["enc"]}
        for _, _, pages, _, views, stamp in self.live.values():
            last = self.cma.memory_behind(next(iter(views.values())))[-1]
            assert self.ram.read(last.last + -7, 8) == stamp
            for space, address in views.items():
                if space in by_space:
                    assert by_space[space].read(address + (pages * PAGE - 8), 8) == stamp

    def teardown(self):
        for number in list(self.live):
            assert self.cma.cma_free(next(iter(self.live.pop(number)[4].values()))) == 0
        for index in list(self.registered):
            self.unregister(index)
        self.accounts()
        assert self.other.mappings() == self.domain.mappings() == []
        for domain, name in ((self.domain, "cam"), (self.other, "enc")):
            domain.detach(self.devices[name])
            domain.destroy()
        assert self.frames.free_count == FRAMES


TestShim = Shim.TestCase
TestShim.settings = settings(max_examples=25, stateful_step_count=25)


@pytest.mark.slow
class TestLongShim(Shim.TestCase):
    settings = settings(max_examples=600, stateful_step_count=60)


@pytest.mark.parametrize("name", [*allocator_names(), "bf"])
@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("index", [0, 2])
def test_a_failing_allocator_leaks_nothing(name, nth, index):
    shim = Shim()
    for reg in shim.regions:
        shim.cma.choose_allocator(reg, name)
    reg, camera = shim.regions[index], shim.devices["cam"]
    shim.cma.set_map(f"*={reg.name}")
    shim.cma.free(shim.cma.alloc(camera, None, PAGE))  # attached now
    reg.served_by.allocator.fail_nth(nth)
    answers = [shim.cma.cma_alloc(camera, None, PAGE, 0) for _ in range(6)]
    codes = [errno_of(answer) for answer in answers]
    assert [place for place, code in enumerate(codes, 1) if code] == [nth]
    assert codes[nth - 1] == -errno.ENOMEM
    assert (reg.users, reg.free_space) == (5, reg.size - 5 * PAGE)
    assert [shim.cma.cma_free(answer) for answer in answers if not errno_of(answer)] == [0] * 5
    assert (reg.users, reg.free_space, shim.frames.free_count) == (0, reg.size, FRAMES)
    shim.teardown()
