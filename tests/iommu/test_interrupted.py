"""What foreign code raises inside a domain's calls, at any of its calls: the domain is sound and nothing is lost."""

import pytest

from swiommu.address import Access, BusRange, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.errors import Busy, DeviceFault, NotFound, SwiommuError
from swiommu.iommu import LinearDomain, PagedDomain, TopDownIova
from swiommu.iommu.groups import Hardware, IommuCore, free_domain
from swiommu.layer import Reserved
from swiommu.memory import Frames, FrameState, SparseRam
from swiommu.pagetable import CountingTables, FrameTables
from swiommu.pagetable.formats import FORMATS
from swiommu.region import BestFit, Region

PAGE, MIB = 4096, 1 << 20
BASE = 0x4000_0000
RAISED = (RuntimeError, KeyboardInterrupt, SystemExit)


class Wire:
    """Raises at the n-th call of foreign code, once."""

    def __init__(self):
        self.left, self.error, self.calls = 0, RuntimeError, []

    def __deepcopy__(self, memo):
        return self  # a domain may try something on a copy of its policy

    def arm(self, n, error):
        self.left, self.error = n, error

    def __call__(self, what):
        self.calls.append(what)
        if self.left:
            self.left -= 1
            if not self.left:
                raise self.error(what)


def wired(wire, made, *names):
    """``made``, with each of these methods passing the wire first."""
    for name in names:
        real = getattr(made, name)
        setattr(made, name, lambda *args, real=real, name=name, **named: (wire(name), real(*args, **named))[1])
    return made


class Iova(TopDownIova):
    """A policy that passes the wire first."""

    def __init__(self, wire, last=0xFFFF_FFFF):
        super().__init__(PAGE, last)
        self.wire = wire

    def alloc(self, *asked):
        self.wire("alloc")
        return super().alloc(*asked)

    def free(self, iova, size):
        self.wire("free")
        super().free(iova, size)

    def take(self, iova, size):
        self.wire("take")
        super().take(iova, size)

    def reserve(self, low, high):
        self.wire("reserve")
        super().reserve(low, high)

    def advance(self, now_ns):
        self.wire("advance")
        super().advance(now_ns)


class World:
    """A domain, alone or on another, with foreign policies and table memories, and what can be seen of it."""

    def __init__(self, kind, flush="strict", form="mock"):
        self.wire = Wire()
        self.ram = PhysSpace("ram", width=40)
        self.frames = Frames(self.ram.at(BASE), 16 * MIB)
        tables = Frames(self.ram.at(BASE + 64 * MIB), MIB)
        self.bus = BusSpace("bus", width=32)
        if kind == "stacked":
            self.lower = PagedDomain(
                BusSpace("ipa", width=32),
                frames=self.frames,
                output_space=self.ram,
                iova=Iova(self.wire),
                in_use="notify",
                flush=flush,
            )
            self.domain = PagedDomain(self.bus, below=self.lower, iova=Iova(self.wire), flush=flush, partial="split")
        else:
            self.lower = None
            self.domain = PagedDomain(
                self.bus,
                frames=self.frames,
                output_space=self.ram,
                iova=Iova(self.wire),
                tables=wired(self.wire, FrameTables(tables), "alloc", "free", "entries"),
                flush=flush,
                format=FORMATS[form],
                partial="split" if form == "mock" else None,
            )
        self.tables = tables
        self.kept = self.domain.alloc(8 * PAGE)
        self.by_hand = self.domain.alloc(2 * PAGE)
        out = self.domain.output_space
        self.free = out.at(0x100_0000 if kind == "alone" else 0x200_0000)
        self.domain.map(self.bus.at(0x100_0000), self.free, 3 * MIB)
        self.held = BusRange(self.bus.at(0x800_0000), MIB)
        self.domain.hold(self.held)
        self.wire.calls.clear()

    def domains(self):
        return [domain for domain in (self.domain, self.lower) if domain is not None]

    def state(self):
        # Some kernels' tables stay when they become empty.
        counted = not self.domain.rules.keeps_empty
        seen = [self.frames.free_count, self.tables.free_count if counted else None]
        for domain in self.domains():
            domain.check()
            seen += [
                [(at, leaf, size) for at, leaf, size in domain.table.each_leaf()],
                [(each.iova.start.value, each.size) for each in domain.mappings()],
                domain.iova.free_bytes,
                list(domain.register.owned),
                domain.table.table_pages if counted else None,
            ]
        return seen

    def settle(self):
        for domain in self.domains():
            domain.flush()


ALL_OR_NOTHING = {
    "alloc": lambda w: w.domain.alloc(3 * MIB),
    "bind": lambda w: (
        w.domain.bind([PhysRange(w.free, PAGE), PhysRange(w.free + 4 * PAGE, 3 * MIB)])
        if w.lower is None
        else w.domain.bind([BusRange(w.free, PAGE), BusRange(w.free + 4 * PAGE, 3 * MIB)])
    ),
    "bind_memory": lambda w: w.domain.bind_memory([PhysRange(w.ram.at(BASE + 32 * MIB), 3 * MIB)]),
    "map": lambda w: w.domain.map(w.bus.at(0x40_0000), w.free + 8 * MIB, 3 * MIB),
    "map in a mapping": lambda w: (
        w.domain.unmap(w.by_hand.iova.start, PAGE),
        w.domain.map(w.by_hand.iova.start, w.free, PAGE),
    ),
    "map small pages": lambda w: w.domain.map(w.bus.at(0x40_0000), w.free + 8 * MIB + PAGE, 3 * MIB),
    "hold": lambda w: w.domain.hold(BusRange(w.bus.at(0x900_0000), MIB)),
    "reserve": lambda w: w.domain.reserve(Reserved(0xA00_0000, MIB)),
}
FINISHED = {
    "release": lambda w: w.domain.release(w.kept),
    "unmap": lambda w: w.domain.unmap(w.bus.at(0x100_0000), 3 * MIB),
    "unmap a part": lambda w: w.domain.unmap(w.bus.at(0x120_0000), 16 * PAGE),
    "drop": lambda w: w.domain.drop(w.held),
    "sync": lambda w: (
        gather := w.domain.gather(),
        w.domain.unmap_gathered(w.bus.at(0x100_0000), 3 * MIB, gather),
        gather.sync(),
    ),
}
KINDS = [("alone", "mock"), ("alone", "arm-lpae-4k-s1"), ("stacked", "mock")]


def each_call(kind, form, flush, call):
    """Worlds in which the call was stopped at its first, second, ... call of foreign code."""
    n = 1
    while True:
        world, error = World(kind, flush, form), RAISED[n % len(RAISED)]
        before = world.state()
        world.wire.arm(n, error)
        try:
            call(world)
        except error:
            yield world, before
        else:
            assert n > 1, "no foreign code runs"
            return
        n += 1


@pytest.mark.parametrize("flush", ["strict", "lazy"])
@pytest.mark.parametrize(("kind", "form"), KINDS)
@pytest.mark.parametrize("name", ["alloc", "bind", "bind_memory", "map", "map small pages", "hold", "reserve"])
def test_what_is_all_or_nothing_is_nothing(name, kind, form, flush):
    for world, before in each_call(kind, form, flush, ALL_OR_NOTHING[name]):
        world.settle()
        assert world.state() == before
        ALL_OR_NOTHING[name](world)
        world.state()


@pytest.mark.parametrize("flush", ["strict", "lazy"])
@pytest.mark.parametrize(("kind", "form"), KINDS)
@pytest.mark.parametrize("name", FINISHED)
def test_what_has_begun_to_unmap_ends_and_nothing_is_lost(name, kind, form, flush):
    done = World(kind, flush, form)
    FINISHED[name](done)
    done.settle()
    expected = done.state()
    for world, before in each_call(kind, form, flush, lambda world: (FINISHED[name](world), world.settle())):
        world.settle()
        if world.state() == before:  # it was stopped before it began, by a table for the smaller leaves
            assert name == "unmap a part"
            continue
        assert world.state() == expected


@pytest.mark.parametrize("kind", ["alone", "stacked"])
@pytest.mark.parametrize("flush", ["strict", "lazy"])
def test_the_end_of_a_domain(kind, flush):
    def end(world):
        domain = world.domain
        for mapping in domain.mappings():
            domain.release(mapping)
        domain.unmap(world.bus.at(0x100_0000), 3 * MIB)
        domain.drop(world.held)
        domain.destroy()

    def again(world):
        domain = world.domain
        for mapping in domain.mappings():
            domain.release(mapping)
        if not domain.destroyed:
            domain.unmap(world.bus.at(0x100_0000), 3 * MIB)
            if domain.register.held:
                domain.drop(world.held)
        domain.destroy()

    for world, _ in each_call(kind, "mock", flush, end):
        if not (world.domain.destroyed and not world.domain.owes):
            again(world)
        if world.lower is not None:
            world.lower.flush()
            world.lower.check()
            assert world.lower.mappings() == []
        else:
            assert world.tables.free_count == world.tables.count
            assert world.frames.free_count == world.frames.count


def test_a_policy_that_refuses_one_range_for_good_stops_nothing_else():
    world = World("alone")
    real = world.domain.iova.free
    stuck = world.kept.iova.start.value

    def free(iova, size):
        if iova == stuck:
            raise RuntimeError("never")
        real(iova, size)

    world.domain.iova.free = free
    with pytest.raises(RuntimeError):
        world.domain.release(world.kept)
    world.domain.release(world.domain.alloc(MIB))
    world.domain.release(world.by_hand)
    with pytest.raises(RuntimeError):
        world.domain.flush()
    world.domain.iova.free = real
    world.domain.flush()
    fresh = World("alone")
    fresh.domain.release(fresh.kept)
    fresh.domain.release(fresh.by_hand)
    assert world.state() == fresh.state()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "None for 4096 bytes aligned to 0x1000 up to 0xffffffff, which is no address"),
        (1.5, "1.5 for 4096 bytes aligned to 0x1000 up to 0xffffffff, which is no address"),
        ("x", "'x' for 4096 bytes aligned to 0x1000 up to 0xffffffff, which is no address"),
        (True, "True for 4096 bytes aligned to 0x1000 up to 0xffffffff, which is no address"),
        (-4096, "-4096 for 4096 bytes aligned to 0x1000 up to 0xffffffff, which is out of these bounds"),
        (1 << 32, "4294967296 for 4096 bytes aligned to 0x1000 up to 0xffffffff, which is out of these bounds"),
    ],
)
def test_a_policy_is_not_trusted(answer, said):
    world = World("alone")
    before, real = world.state(), world.domain.iova.alloc
    world.domain.iova.alloc = lambda *_: answer
    with pytest.raises(SwiommuError) as caught:
        world.domain.alloc(PAGE)
    assert str(caught.value) == f"the address policy answered {said}"
    world.domain.iova.alloc = real
    assert world.state() == before


def test_a_policy_that_answers_what_is_taken_loses_nothing():
    world = World("alone")
    before, real = world.state(), world.domain.iova.alloc
    start = world.kept.iova.start.value
    world.domain.iova.alloc = lambda *_: start
    with pytest.raises(SwiommuError) as caught:
        world.domain.alloc(PAGE)
    assert str(caught.value) == (
        f"the address policy answered {start:#x} for 4096 bytes: [{start:#x}, {start + PAGE:#x}) overlaps "
        f"[{start:#x}, {start + 8 * PAGE:#x}), which is in use"
    )
    taken = []
    world.domain.iova.alloc = lambda *asked: (taken.append(real(*asked)), taken[-1] + 1)[1]
    with pytest.raises(SwiommuError) as caught:
        world.domain.alloc(PAGE)
    assert str(caught.value) == (
        f"the address policy answered {taken[0] + 1} for 4096 bytes aligned to 0x1000 up to 0xffffffff, "
        "which is not aligned"
    )
    world.domain.iova.alloc = real
    world.domain.iova.free(taken[0], PAGE)  # what it has taken and named wrongly is its own affair
    assert world.state() == before


def test_check_sees_frames_that_nobody_has():
    world = World("alone")
    world.domain.backing.take(4 * PAGE, PAGE, Prot.READ, 0xFFFF_FFFF)
    with pytest.raises(AssertionError) as caught:
        world.domain.check()
    assert str(caught.value) == "14 frames were taken and not given back, mappings have 10"
    world = World("alone")
    world.frames.give(world.kept.pieces[0].start.value // PAGE, 1)
    with pytest.raises(AssertionError) as caught:
        world.domain.check()
    assert str(caught.value).endswith("is mapped, and not all of its frames are taken")
    world = World("stacked")
    world.domain.backing.take(4 * PAGE, PAGE, Prot.READ, 0xFFFF_FFFF)
    with pytest.raises(AssertionError) as caught:
        world.domain.check()
    assert str(caught.value).endswith("were taken in the domain of 'ipa', and no mapping has them")
    world = World("alone")
    world.domain.mapper.invalidation.tables.alloc()
    with pytest.raises(AssertionError):
        world.domain.check()


def test_pinned_frames_keep_their_mapping():
    world = World("alone")
    before = world.state()
    pfn = world.kept.pieces[0].start.value // PAGE
    world.frames.set_state(pfn + 3, 1, FrameState.PINNED)
    with pytest.raises(Busy) as caught:
        world.domain.release(world.kept)
    assert str(caught.value) == f"frame {pfn + 3:#x} is pinned: 8 frames at {pfn:#x} are not given back"
    assert world.state() == before
    world.frames.set_state(pfn + 3, 1, FrameState.TAKEN)
    world.domain.release(world.kept)
    with pytest.raises(NotFound):
        world.domain.release(world.kept)


def test_who_watches_a_table():
    for n in (1, 2):
        world = World("alone")
        before, left, told = world.state(), [n], []

        def watch(what, start, size, left=left, told=told):
            told.append((what, start, size))
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        world.domain.table.watch = watch
        with pytest.raises(KeyboardInterrupt):
            world.domain.map(world.bus.at(0x40_0000), world.free + 8 * MIB, 2 * MIB + PAGE)
        assert world.state() == before
        left[0] = 1
        with pytest.raises(KeyboardInterrupt):
            world.domain.release(world.kept)
        assert told[-1] == ("unmap", world.kept.iova.start.value, 8 * PAGE)
        fresh = World("alone")
        fresh.domain.release(fresh.kept)
        assert world.state() == fresh.state()


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("policy", ["stack", "replace"])
def test_a_device_that_does_not_take_its_domain(error, policy):
    class Device:
        """One whose driver may be anybody's."""

        name, group, dma_mask, wire, held = "odd", None, 0xFFFF_FFFF, Wire(), None

        @property
        def domain(self):
            return self.held

        @domain.setter
        def domain(self, domain):
            self.wire("domain")
            self.held = domain

    for n in (1, 2):
        world, device = World("stacked"), Device()
        former = world.lower if policy == "stack" else World("alone").domain
        former.attach(device)
        Device.wire.arm(n, error)
        with pytest.raises(error):
            world.domain.attach(device, policy)
        assert (device.domain, former.devices, world.domain.devices) == (former, (device,), ())
        world.domain.attach(device, policy)
        world.domain.detach(device)
        assert (device.domain, former.devices, world.domain.devices) == (former, (device,), ())
        world.state()


# -- notifiers and fault handlers


def noticed(notifier):
    world = World("stacked")
    told = []
    world.domain.on_notice.append(notifier(world))
    world.domain.on_notice.append(told.append)
    return world, told


@pytest.mark.parametrize("error", RAISED)
def test_what_a_notifier_raises_leaves_the_lower_domain_as_it_was(error):
    def notifier(_):
        def raises(_):
            raise error

        return raises

    world, told = noticed(notifier)
    below = world.kept.below
    with pytest.raises(error):
        world.lower.unmap(below.iova.start, 8 * PAGE)
    assert told == [BusRange(world.kept.iova.start, 8 * PAGE)], "the others are told all the same"
    assert world.lower.iova_to_phys(below.iova.start) is not None
    assert world.domain.iova_to_phys(world.kept.iova.start) is None
    world.domain.on_notice.clear()
    assert world.lower.unmap(below.iova.start, 8 * PAGE) == 8 * PAGE
    world.domain.release(world.kept)
    for domain in world.domains():
        domain.check()


CHANGES = {
    "map above": lambda w: w.domain.map(w.bus.at(0x40_0000), w.kept.below.iova.start, PAGE),
    "map below": lambda w: w.lower.map(w.lower.input_space.at(0x40_0000), w.ram.at(0), PAGE),
    "unmap above": lambda w: w.domain.unmap(w.bus.at(0x100_0000), PAGE),
    "unmap below": lambda w: w.lower.unmap(w.kept.below.iova.start, PAGE),
    "alloc": lambda w: w.domain.alloc(PAGE),
    "alloc below": lambda w: w.lower.alloc(PAGE),
    "bind": lambda w: w.domain.bind([BusRange(w.kept.below.iova.start, PAGE)]),
    "bind_memory": lambda w: w.domain.bind_memory([PhysRange(w.ram.at(0), PAGE)]),
    "release": lambda w: w.domain.release(w.by_hand),
    "hold": lambda w: w.domain.hold(BusRange(w.bus.at(0x900_0000), MIB)),
    "drop": lambda w: w.domain.drop(w.held),
    "reserve": lambda w: w.domain.reserve(Reserved(0xA00_0000, MIB)),
    "flush": lambda w: w.lower.flush(),
    "advance": lambda w: w.lower.advance(1),
    "attach": lambda w: w.domain.attach(BusDevice("late", SparseRam(w.ram))),
    "destroy": lambda w: w.domain.destroy(),
    "stand on it": lambda w: PagedDomain(BusSpace("other", width=32), below=w.lower),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_notifier_may_look_and_may_not_change(change):
    seen = []

    def notifier(world):
        def reenters(_):
            seen.append(world.domain.iova_to_phys(world.kept.iova.start))
            seen.append(world.lower.iova_to_phys(world.kept.below.iova.start) is not None)
            seen.append(len(world.domain.mappings()))
            with pytest.raises(Busy) as caught:
                CHANGES[change](world)
            seen.append(str(caught.value))

        return reenters

    world, told = noticed(notifier)
    below = world.kept.below.iova.start
    assert world.lower.unmap(below, 8 * PAGE) == 8 * PAGE
    assert (seen[:3], len(told)) == ([None, True, 2], 1)
    assert seen[3].startswith("an unmap notifier may not change the domain of ")
    assert seen[3].endswith(": it runs inside a call of it")
    assert world.lower.iova_to_phys(below) is None
    assert [use for use in world.lower.uses.over(below.value, below.value + 8 * PAGE) if use.iova is not None] == []
    for domain in world.domains():
        domain.check()
    CHANGES["map below"](world)  # afterwards it may


def test_a_policy_may_not_change_its_domain():
    world = World("alone")
    before, real, said = world.state(), world.domain.iova.alloc, []

    def alloc(*args):
        for change in (lambda: world.domain.alloc(PAGE), lambda: world.domain.release(world.kept), world.domain.flush):
            with pytest.raises(Busy) as caught:
                change()
            said.append(str(caught.value))
        raise RuntimeError

    world.domain.iova.alloc = alloc
    with pytest.raises(RuntimeError):
        world.domain.alloc(PAGE)
    assert set(said) == {"an address policy may not change the domain of 'bus': it runs inside a call of it"}
    world.domain.iova.alloc = real
    assert world.state() == before


def test_a_table_memory_may_not_change_its_domain():
    class Tables(CountingTables):
        def alloc(self, size=PAGE):
            if made:
                with pytest.raises(Busy) as caught:
                    made[0].map(bus.at(0), ram.at(0), PAGE)
                assert str(caught.value) == (
                    "a table memory may not change the domain of 'bus': it runs inside a call of it"
                )
            return super().alloc(size)

    made, ram, bus = [], PhysSpace("ram"), BusSpace("bus", width=32)
    made.append(PagedDomain(bus, frames=Frames(ram.at(0), MIB), output_space=ram, tables=Tables()))
    made[0].map(bus.at(0x1000), ram.at(0), PAGE)
    made[0].check()


def test_a_fault_handler_may_map_what_was_missing():
    world = World("alone")
    missing = world.bus.at(0x40_0000)
    world.domain.node.handlers.append(lambda fault: world.domain.map(missing, world.free, PAGE))
    with pytest.raises(DeviceFault):
        world.domain.translate(missing, 8, Access.READ)
    assert world.domain.translate(missing, 8, Access.READ)[0].output == world.free.value


@pytest.mark.parametrize("error", RAISED)
def test_what_a_fault_handler_raises_changes_nothing(error):
    world = World("alone")
    before = world.state()

    def handler(_):
        raise error

    world.domain.node.handlers.append(handler)
    with pytest.raises(error):
        world.domain.translate(world.bus.at(0x40_0000), 8, Access.READ)
    assert world.state() == before


# -- linear domains, groups


class Plugged(BestFit):
    """With room for attributes."""


@pytest.mark.parametrize("error", RAISED)
def test_a_region_s_allocator(error):
    wire, ram = Wire(), PhysSpace("ram", width=40)
    region = Region(ram.at(BASE), MIB, allocator=wired(wire, Plugged(BASE, MIB), "alloc", "free", "reserve"))
    domain = LinearDomain(BusSpace("bus", width=40), region)
    kept = domain.alloc(2 * PAGE)

    def state():
        domain.check()
        region.check()
        return domain.mappings(), region.chunks(), region.free_space, list(domain.mapper._record)

    before = state()
    for call in (
        lambda: domain.alloc(PAGE),
        lambda: domain.release(kept),
        lambda: domain.reserve(Reserved(BASE + 64 * PAGE, PAGE)),
        lambda: region.reserve(ram.at(BASE + 32 * PAGE), PAGE),
    ):
        wire.arm(1, error)
        with pytest.raises(error):
            call()
        assert state() == before
        assert domain.iova_to_phys(kept.iova.start) == kept.pieces[0].start
    domain.release(kept)
    assert region.users == 0


def test_a_linear_domain_that_is_not_made_withholds_nothing():
    ram = PhysSpace("ram", width=40)
    lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(BASE), MIB), output_space=ram)
    for at in (0x1000_0000, 0x1010_0000):
        lower.reserve(Reserved(at, PAGE, "msi"))
    wire = Wire()
    plugged = wired(wire, Plugged(0x2000_0000, 4 * MIB), "reserve")
    region = Region(lower.input_space.at(0x2000_0000), 4 * MIB, allocator=plugged)
    wire.arm(2, RuntimeError)
    with pytest.raises(RuntimeError):
        LinearDomain(BusSpace("bus", width=40), region, below=lower, delta=-0x1000_0000)
    assert (region.users, lower.node.uppers) == (0, [])
    domain = LinearDomain(BusSpace("bus", width=40), region, below=lower, delta=-0x1000_0000)
    assert region.users == 2
    domain.destroy()
    assert region.users == 0


@pytest.mark.parametrize("error", RAISED)
def test_listeners_and_drivers_of_groups(error):
    ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    core = IommuCore()
    smmu = Hardware(name="smmu", bus=bus, ram=ram, frames=Frames(ram.at(BASE), 4 * MIB))
    nics = [BusDevice(f"nic{number}", SparseRam(ram)) for number in range(3)]
    smmu.grouping = "iommu"
    for nic in nics:
        group = core.probe(nic, smmu)
    own, wire = group.domain, Wire()
    core.listeners.append(lambda event: wire("listener"))
    smmu.attach_hook = lambda domain, device: wire("attach")
    for n in range(1, 7):
        other = smmu.alloc(own.kernel.type.__class__.UNMANAGED)
        wire.arm(n, error)
        with pytest.raises(error):
            group.attach_group(other)
        group.check()
        assert group.domain is own
        assert {nic.domain for nic in nics} == {own}
        free_domain(other)
    wire.arm(1, error)
    with pytest.raises(error):
        core.probe(late := BusDevice("late", SparseRam(ram)), smmu)
    assert (late.group, late.domain, len(group.members)) == (None, None, 3)
    group.check()
