"""Regions, allocators and the map: who is found, who is attached when, what refuses what."""

import errno
import logging
import threading

import pytest

import cma_compat
from cma_compat import (
    IS_ERR_VALUE,
    CmaContext,
    CmaInfo,
    cma_allocator,
    cma_chunk,
    cma_device,
    cma_region,
    errno_of,
    error_value,
)
from cma_compat.allocators import ENTRY_POINTS, Plugged
from swiommu.address import PhysSpace
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotFound, NotSupported, SwiommuError
from swiommu.region import BestFit

PAGE = 4096
MIB = 1 << 20
BASE = 0x4000_0000


def regions(cma, *names, size=MIB, **options):
    made = [cma_region(BASE + place * size, size, name, **options) for place, name in enumerate(names)]
    assert [cma.cma_region_register(reg) for reg in made] == [0] * len(made)
    return made


class Upward:
    """A plug-in of 2010: one place after the other, and nothing is used again. It writes down what it is asked."""

    name = "up"

    def __init__(self):
        self.said = []

    def init(self, reg):
        self.said.append(("init", reg.start, reg.size))
        reg.private_data = reg.start
        return 0

    def cleanup(self, reg):
        self.said.append(("cleanup", reg.users))

    def alloc(self, reg, size, alignment):
        start = reg.private_data + alignment - 1 & -alignment
        if start + size > reg.start + reg.size:
            return None
        reg.private_data = start + size
        return cma_chunk(start, size)

    def free(self, chunk):
        self.said.append(("free", chunk.start, chunk.size, chunk.region.users))


# -- lookup


def test_named_regions_come_first_and_the_latest_of_a_name_wins():
    cma = CmaContext()
    first, private, empty, second = regions(cma, "pool", None, "", "pool")
    assert cma.regions == (second, empty, first, private)
    assert cma.alloc_from("pool", PAGE).value == second.start
    assert cma.alloc_from([""], PAGE).value == empty.start
    assert errno_of(cma.cma_alloc_from("", PAGE)) == -errno.ENOMEM  # no name at all
    assert cma.cma_free(second.start) == 0
    assert cma.cma_region_unregister(second) == 0
    assert cma.alloc_from("pool", PAGE).value == first.start


def test_a_list_falls_back_within_itself_and_says_what_kept_each_region():
    cma = CmaContext()
    small, large = regions(cma, "small", "large")
    assert cma.cma_region_register(cma_region(2 * BASE, MIB, "lost", "na")) == 0
    blocker = cma.alloc_from("small", MIB // 2 + PAGE)
    assert cma.alloc_from("nobody,small,lost,large,", MIB // 2).value == large.start
    assert cma.alloc_from(("small", "large"), MIB // 4).value == small.start + MIB // 2 + PAGE
    cma.set_map("*=small,nobody,lost;*=large")
    with pytest.raises(NoMemory) as caught:
        cma.alloc(cma_device("x"), None, MIB)
    assert str(caught.value) == (
        "no region can give 1048576 bytes aligned to 0: 'small': 1048576 bytes were asked for and 258048 are free; "
        "'nobody' is no region; 'lost': the region at 0x80000000 has no allocator"
    )
    with pytest.raises(NoMemory) as empty:
        cma.alloc_from([], PAGE)
    assert str(empty.value) == "no region can give 4096 bytes aligned to 0: no region is named"
    cma.free(blocker)
    cma.check()


def test_one_device_in_several_regions_by_type():
    cma = CmaContext()
    left, right, common = regions(cma, "left", "right", "common")
    cma.set_map("codec/a=left,right;codec/b=right,left;*=common")
    codec = cma_device("codec")
    assert [cma.alloc(codec, type_, MIB).value for type_ in ("a", "b", None)] == [left.start, right.start, common.start]
    assert errno_of(cma.cma_alloc(codec, "a", PAGE, 0)) == -errno.ENOMEM  # never the next rule
    wild = CmaContext(type_wildcards=True)
    assert wild.cma_set_defaults(None, "codec/*=left") == 0
    regions(wild, "left")
    assert not IS_ERR_VALUE(wild.cma_alloc(codec, "any", PAGE, 0))
    cma.set_map("codec/*=left")
    assert errno_of(cma.cma_alloc(codec, "any", PAGE, 0)) == -errno.ENOENT


@pytest.mark.parametrize(
    ("dev", "size", "alignment", "code"),
    [
        (None, PAGE, 0, -errno.EINVAL),
        (None, 0, 0, -errno.EINVAL),
        (cma_device("cam"), 0, 0, -errno.EINVAL),
        (cma_device("cam"), -1, 0, -errno.EINVAL),
        (cma_device("cam"), PAGE, 3, -errno.EINVAL),
        (cma_device("cam"), PAGE, -8, -errno.EINVAL),
        (cma_device(None), PAGE, 0, -errno.EINVAL),
        (cma_device(""), PAGE, 0, -errno.EINVAL),
        (cma_device("tuner"), PAGE, 0, -errno.ENOENT),
        (cma_device("cam"), 2**64 - 1, 0, -errno.ENOMEM),  # rounds to 0 in the posting
        (cma_device("cam"), PAGE, 2**63, -errno.ENOMEM),
        (cma_device("cam"), PAGE, 1, 0),
    ],
)
def test_what_an_allocation_by_the_map_answers(dev, size, alignment, code):
    cma = CmaContext()
    (pool,) = regions(cma, "pool")
    assert errno_of(cma.cma_alloc(cma_device("cam"), None, PAGE, 0)) == -errno.ENOENT  # no map
    assert cma.cma_set_defaults(None, "cam=pool") == 0
    assert errno_of(cma.cma_alloc(dev, None, size, alignment)) == code
    assert pool.users == (code == 0)
    cma.check()


def test_information():
    cma = CmaContext(width=32)
    left, _, right = regions(cma, "left", None, "right")
    cma.set_map("cam=left,right,left,nobody;no=nobody;bad=")
    cma.alloc_from("left", 5000)
    assert cma.info(cma_device("cam")) == CmaInfo(left.start, right.start + MIB, 3 * MIB, 3 * MIB - 4 * PAGE, 3)
    for device in ("no", "bad"):
        assert cma.info(cma_device(device)) == CmaInfo(lower_bound=2**32 - 1)
    info = CmaInfo(1, 2, 3, 4, 5)
    assert [cma.cma_info(info, None), cma.cma_info(None, cma_device("cam")), cma.cma_info_about(None, "left")] == [
        -errno.EINVAL
    ] * 3
    assert info == CmaInfo(1, 2, 3, 4, 5)
    assert cma.cma_info(info, cma_device("tuner")) == -errno.ENOENT
    assert info == CmaInfo()
    with pytest.raises(InvalidArgument) as caught:
        cma.info(None)
    assert str(caught.value) == "no device to tell about"
    assert cma.cma_info_about(info, ["right"]) == 0
    assert info == CmaInfo(right.start, right.start + MIB, MIB, MIB, 1)


# -- allocators


def test_a_plug_in_sees_what_it_was_promised():
    cma = CmaContext()
    up = Upward()
    assert cma.cma_allocator_register(up) == 0
    (reg,) = regions(cma, "pool", alloc_name="up")
    assert (up.said, reg.alloc) == ([], None)  # attached by the first allocation
    assert [cma.alloc_from_region(reg, *asked).value for asked in [(1, 0), (5000, 0x10000)]] == [BASE, BASE + 0x10000]
    assert up.said == [("init", BASE, MIB)]
    assert (reg.alloc, reg.users, reg.free_space) == (up, 2, MIB - 3 * PAGE)
    assert cma.cma_region_unregister(reg) == -errno.EBUSY
    cma.check()
    assert [cma.cma_free(BASE), cma.cma_free(BASE + 0x10000)] == [0, 0]
    # Accounted first, then freed.
    assert up.said[1:] == [("free", BASE, PAGE, 1), ("free", BASE + 0x10000, 2 * PAGE, 0)]
    assert cma.cma_region_unregister(reg) == 0
    assert (up.said[-1], reg.alloc, reg.private_data) == (("cleanup", 0), None, None)


@pytest.mark.parametrize(
    "allocator",
    [
        cma_allocator("x"),
        cma_allocator("x", alloc=print),
        cma_allocator("x", free=print),
        None,
        cma_allocator("x", alloc=1, free=2),
    ],
)
def test_an_allocator_has_alloc_and_free(allocator):
    cma = CmaContext()
    assert cma.cma_allocator_register(allocator) == -errno.EINVAL
    assert [each.name for each in cma.allocators] == ["bf"]


def test_a_later_allocator_is_attached_where_it_was_waited_for():
    cma = CmaContext(allocators=())
    default, tried, named, other, own = regions(cma, "default", "tried", "named", "other", "own")
    named.alloc_name, other.alloc_name, own.alloc_name = "up", "na", "first"
    for reg in (tried, named):
        assert errno_of(cma.cma_alloc_from_region(reg, PAGE)) == -errno.ENOMEM
        assert reg.used
    first = cma_allocator("first", factory=BestFit)
    assert cma.cma_allocator_register(first) == 0
    # The first one of all is the default, also of a region that failed once.
    assert [reg.alloc for reg in (default, tried, named, other, own)] == [first, first, None, None, first]
    up = Upward()
    assert cma.cma_allocator_register(up) == 0
    assert [reg.alloc for reg in (default, tried, named, other, own)] == [first, first, up, None, first]
    assert [errno_of(cma.cma_alloc_from_region(reg, PAGE)) for reg in (named, other)] == [0, -errno.ENOMEM]
    assert cma.cma_allocator_register(cma_allocator(None, alloc=up.alloc, free=up.free)) == 0  # can't be asked for


def test_an_unnamed_allocator_can_be_the_default():
    up = Upward()
    cma = CmaContext(allocators=[cma_allocator(alloc=up.alloc, free=up.free, init=up.init)])
    (reg,) = regions(cma, "pool")
    assert cma.alloc_from("pool", PAGE).value == BASE
    assert reg.served_by.allocator.name == "-"
    with pytest.raises(NotFound) as caught:
        cma._allocators.wanted("bf")
    assert str(caught.value).startswith("no allocator is named 'bf'; there are: -, best_fit, bitmap")


@pytest.mark.parametrize(
    ("init", "code", "text"),
    [
        (lambda _: -errno.ENODEV, -errno.ENODEV, f"the allocator 'a' answered -{errno.ENODEV} to init of 0x40000000"),
        (
            lambda _: 1 // 0,
            -errno.EIO,
            "the allocator 'a' in init raised ZeroDivisionError: integer division or modulo by zero",
        ),
        (
            lambda _: "x",
            -errno.EIO,
            "the allocator 'a' answered 'x' to init of 0x40000000, which is neither 0 nor an errno",
        ),
        (None, 0, ""),
        (lambda _: None, 0, ""),
        (lambda _: 7, 0, ""),
    ],
)
def test_a_preset_allocator_is_attached_at_once_or_the_region_is_refused(init, code, text):
    cma = CmaContext()
    preset = cma_allocator("a", alloc=Upward().alloc, free=lambda _: None, init=init)
    reg = cma_region(BASE, MIB, alloc=preset)
    if code:
        with pytest.raises(SwiommuError) as caught:
            cma.register_region(cma_region(BASE, MIB, alloc=preset))
        assert str(caught.value) == text
    assert cma.cma_region_register(reg) == code
    assert (reg.registered, reg.used, reg.alloc) == (code == 0, code != 0, preset if code == 0 else None)
    assert cma.regions == ((reg,) if code == 0 else ())


def test_choosing_another_allocator_for_an_empty_region():
    cma = CmaContext()
    up = Upward()
    cma.register_allocator(up)
    (reg,) = regions(cma, "pool", alloc_name="up")
    buffer = cma.alloc_from("pool", PAGE)
    with pytest.raises(Busy) as caught:
        cma.choose_allocator(reg, None)
    assert str(caught.value) == "1 chunks are alive in the region at 0x40000000"
    cma.free(buffer)
    cma.choose_allocator(reg, "buddy")
    assert (reg.alloc, up.said[-1]) == (None, ("cleanup", 0))
    cma.alloc_from("pool", PAGE)
    assert reg.served_by.allocator.name == "buddy"
    with pytest.raises(InvalidArgument) as unknown:
        cma.choose_allocator(cma_region(0, MIB), "bf")
    assert str(unknown.value) == "the region is not registered here"


def test_bus_addresses_are_as_wide_as_memory_needs():
    with pytest.raises(InvalidArgument) as caught:
        CmaContext(width=32, memory=PhysSpace("ram", width=40))
    assert str(caught.value) == "bus addresses of 32 bits for a memory of 40"


class FakeEntryPoint:
    def __init__(self, name, thing):
        self.name, self.thing = name, thing

    def load(self):
        if isinstance(self.thing, Exception):
            raise self.thing
        return self.thing


def test_allocators_come_by_entry_point(monkeypatch, caplog):
    made = Upward()
    things = {
        "object": made,
        "class": Upward,
        "ours": BestFit,
        "maker": lambda start, size, *, page_size: BestFit(start, size, page_size=page_size),
        "text": "no allocator",
        "missing": ImportError("no module named 'gone'"),
        "liar": lambda *_, **__: "no allocator",
    }

    def entry_points(*, group, name):
        assert group == ENTRY_POINTS
        return [FakeEntryPoint(name, things[name])] if name in things else []

    monkeypatch.setattr("cma_compat.allocators.entry_points", entry_points)
    cma = CmaContext()
    names = [*things, "nobody"]
    made_of = regions(cma, *names)
    for reg in made_of:
        reg.alloc_name = reg.name
    with caplog.at_level(logging.WARNING, "cma_compat"):
        codes = [errno_of(cma.cma_alloc_from(name, PAGE)) for name in names]
    assert codes == [0, 0, 0, 0, -errno.ENOMEM, -errno.ENOMEM, -errno.ENOMEM, -errno.ENOMEM]
    assert [record.getMessage().split(": ", 1)[1][:60] for record in caplog.records] == [
        "the entry point 'text' is no allocator: 'no allocator'",
        "the entry point 'missing' raised ImportError: no module name",
        "the allocator 'liar' made 'no allocator', which is no alloca",
        "no allocator is named 'nobody'; there are: bf, best_fit, bit",
    ]
    assert cma.cma_region_register(cma_region(BASE - MIB, MIB, "again", "object")) == 0
    assert cma.alloc_from("again", PAGE).value == BASE - MIB
    assert cma.regions[0].alloc is made  # loaded once
    assert cma.allocators[0].name == "bf"
    assert len(cma.allocators) == 1  # found by name, never the default
    assert made_of[0].alloc is made
    cma.check()


def test_an_installed_package_brings_an_allocator(tmp_path, monkeypatch):
    (tmp_path / "topmost.py").write_text(
        "from cma_compat import cma_chunk\n"
        "class Topmost:\n"
        "    name = 'topmost'\n"
        "    def alloc(self, reg, size, alignment):\n"
        "        return cma_chunk(reg.start + reg.size - size & -alignment, size)\n"
        "    def free(self, chunk):\n"
        "        pass\n"
    )
    info = tmp_path / "topmost-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: topmost\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntop = topmost:Topmost\n")
    monkeypatch.syspath_prepend(tmp_path)
    cma = CmaContext()
    (reg,) = regions(cma, "pool", alloc_name="top")
    assert cma.alloc_from("pool", 3 * PAGE, 4 * PAGE).value == BASE + MIB - 4 * PAGE
    assert reg.alloc.name == "topmost"


# -- garbage is refused, logged, contained


class Wild(Upward):
    """Answers rightly until it is told an answer."""

    name = "wild"

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer
        self.freed = []

    def alloc(self, reg, size, alignment):
        return super().alloc(reg, size, alignment) if self.answer is None else self.answer(reg, size)

    def free(self, chunk):
        self.freed.append(chunk)


def boom(*_):
    raise ValueError("I am broken")


GARBAGE = [
    (lambda reg, size: cma_chunk(reg.start, size), errno.EADDRINUSE, "over the live chunk at 0x40000000"),
    (lambda reg, size: cma_chunk(reg.start + PAGE, size), errno.EADDRINUSE, "over the live chunk at 0x40000000"),
    (lambda reg, size: cma_chunk(reg.start - PAGE, size), errno.ENOMEM, "outside the region"),
    (lambda reg, size: cma_chunk(reg.start + reg.size - PAGE, size), errno.ENOMEM, "outside the region"),
    (lambda reg, size: cma_chunk(reg.start + 0x8800, size), errno.ENOMEM, "which is not aligned"),
    (lambda reg, size: cma_chunk(reg.start + 0x8000, size + 1), errno.ENOMEM, "which is no chunk of that size"),
    (lambda reg, size: cma_chunk("here", size), errno.ENOMEM, "which is no chunk of that size"),
    (lambda reg, size: 0x4000_8000, errno.ENOMEM, "which is no chunk of that size"),
    (lambda reg, size: (reg.start, size), errno.ENOMEM, "which is no chunk of that size"),
    (boom, errno.ENOMEM, "the allocator 'wild' in alloc raised ValueError: I am broken"),
    (lambda reg, size: None, errno.ENOMEM, "the allocator 'wild' has no room for 8192 bytes aligned to 4096"),
]


@pytest.mark.parametrize(("answer", "code", "text"), GARBAGE)
def test_garbage_of_a_plug_in_is_refused_and_contained(answer, code, text, caplog):
    wild = Wild()
    cma = CmaContext(allocators=[wild])
    (reg,) = regions(cma, "pool")
    good = cma.alloc_from("pool", 4 * PAGE)
    wild.answer = answer
    with caplog.at_level(logging.INFO, "cma_compat"):
        assert errno_of(cma.cma_alloc_from_region(reg, 2 * PAGE)) == -code
    assert text in caplog.records[-1].getMessage()
    assert errno_of(cma.cma_alloc_from("pool", 2 * PAGE)) == -errno.ENOMEM
    assert (reg.users, reg.free_space) == (1, MIB - 4 * PAGE)
    cma.check()
    wild.answer = None
    assert cma.alloc_from("pool", PAGE).value == good.value + 4 * PAGE
    assert [cma.cma_free(good), cma.cma_free(good.value + 4 * PAGE)] == [0, 0]
    cma.check()


def test_a_plug_in_that_will_not_free_keeps_the_chunk_alive():
    wild = Wild()
    cma = CmaContext(allocators=[wild])
    (reg,) = regions(cma, "pool")
    buffer = cma.alloc_from("pool", PAGE)
    wild.free = boom
    assert cma.cma_free(buffer) == -errno.EIO
    assert (reg.users, reg.free_space) == (1, MIB - PAGE)
    cma.check()
    del wild.free
    assert [cma.cma_free(buffer), cma.cma_free(buffer)] == [0, -errno.ENOENT]
    cma.check()


def test_a_plug_in_whose_cleanup_fails_goes_all_the_same(caplog):
    wild = Wild()
    wild.cleanup = boom
    cma = CmaContext(allocators=[wild])
    (reg,) = regions(cma, "pool")
    cma.free(cma.alloc_from("pool", PAGE))
    with caplog.at_level(logging.WARNING, "cma_compat"):
        assert cma.cma_region_unregister(reg) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "the allocator 'wild' in cleanup raised ValueError: I am broken"
    ]


def test_a_plug_in_may_not_call_back():
    cma = CmaContext()
    answers = []

    class Nosy(Upward):
        name = "nosy"

        def alloc(self, reg, size, alignment):
            answers.append(errno_of(cma.cma_alloc_from("other", PAGE)))
            return super().alloc(reg, size, alignment)

        def free(self, chunk):
            answers.append(cma.cma_free(chunk.start))

    cma.register_allocator(Nosy())
    regions(cma, "pool", "other")
    cma.regions[1].alloc_name = "nosy"
    assert cma.cma_free(cma.cma_alloc_from("pool", PAGE)) == 0
    assert answers == [-errno.EBUSY, -errno.EBUSY]
    cma.check()


def test_what_a_plug_in_offers_as_an_allocator_of_ours():
    up = Upward()
    reg = cma_region(BASE, 8 * PAGE)
    up.init(reg)
    plugged = Plugged(reg, up, PAGE)
    assert [plugged.alloc(2 * PAGE, 4 * PAGE), plugged.alloc(PAGE, 4 * PAGE)] == [BASE, BASE + 4 * PAGE]
    assert plugged.holes() == [(BASE + 2 * PAGE, 2 * PAGE), (BASE + 5 * PAGE, 3 * PAGE)]
    assert [plugged.fits(2 * PAGE, 2 * PAGE), plugged.fits(2 * PAGE, 4 * PAGE), plugged.fits(4 * PAGE, PAGE)] == [
        True,
        False,
        False,
    ]
    with pytest.raises(NotSupported) as caught:
        plugged.reserve(BASE, PAGE)
    assert str(caught.value) == "the allocator 'up' can't be told to take 4096 bytes at 0x40000000"
    with pytest.raises(NotFound):
        plugged.free(BASE, PAGE)
    plugged.fail_nth(2)
    assert plugged.alloc(PAGE, PAGE) == BASE + 5 * PAGE
    with pytest.raises(NoMemory):
        plugged.alloc(PAGE, PAGE)
    plugged.check()


# -- many threads, one mutex


def test_threads_hammer_one_context():
    cma = CmaContext()
    up_and_down = regions(cma, "left", "right")
    cma.set_map("t?=left,right")
    inside = []

    class Watched(BestFit):
        """Notices when two calls meet."""

        def alloc(self, size, align):
            inside.append(threading.get_ident())
            place = super().alloc(size, align)
            assert inside.pop() == threading.get_ident()
            return place

    for reg in up_and_down:
        cma.choose_allocator(reg, None)
    cma._allocators.registered[0].factory = Watched
    failures, start = [], threading.Barrier(6)

    def work(seed):
        device, held = cma_device(f"t{seed}"), []
        start.wait()
        for step in range(300):
            if (step * 7 + seed) % 3 and held:
                if cma.cma_free(held.pop(step % len(held))):
                    failures.append(("free", seed, step))
            else:
                answer = cma.cma_alloc(device, None, (step * seed % 9 + 1) * PAGE, PAGE << step % 3)
                if not IS_ERR_VALUE(answer):
                    held.append(answer)
            if step % 50 == 0:
                cma.info(device)
                extra = cma_region(BASE + (16 + seed) * MIB, MIB, f"x{seed}")
                if cma.cma_region_register(extra) or cma.cma_region_unregister(extra):
                    failures.append(("region", seed, step))
        failures.extend(("end", seed, answer) for answer in held if cma.cma_free(answer))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    cma.check()
    assert [(reg.users, reg.free_space) for reg in up_and_down] == [(0, MIB), (0, MIB)]


def test_two_threads_free_one_chunk_once():
    cma = CmaContext()
    regions(cma, "pool")
    for _ in range(50):
        buffer = cma.alloc_from("pool", PAGE)
        codes, start = [], threading.Barrier(3)

        def free(buffer=buffer, codes=codes, start=start):
            start.wait()
            codes.append(cma.cma_free(buffer))

        threads = [threading.Thread(target=free) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes) == [-errno.ENOENT, -errno.ENOENT, 0]


# -- the module's own context


def test_every_call_of_2010_is_there_by_its_name():
    cma = cma_compat
    reg = cma.cma_region(BASE, MIB, "pool")
    assert cma.cma_set_defaults([], "cam=pool") == 0
    early = cma.cma_region(8 * BASE, MIB)
    assert [cma.cma_early_region_register(early), cma.cma_early_region_reserve(early)] == [0, -errno.EOPNOTSUPP]
    cma.cma_early_regions_reserve()
    cma.cma_early_regions_reserve(lambda reg: 0 if reg is early else -errno.ENOMEM)
    assert (cma.cma_init(), early.registered) == (0, True)
    assert cma.cma_region_register(reg) == 0
    assert cma.cma_allocator_register(Upward()) == 0
    info = cma.CmaInfo()
    assert [cma.cma_info(info, cma_device("cam"), None), info.count, cma.cma_info_about(info, "pool")] == [0, 1, 0]
    buffers = [
        cma.cma_alloc(cma_device("cam"), None, PAGE, 0),
        cma.cma_alloc_from("pool", PAGE, 0),
        cma.cma_alloc_from_region(early, PAGE, 0),
    ]
    assert [cma.IS_ERR_VALUE(buffer) for buffer in buffers] == [False] * 3
    assert [cma.cma_free(buffer) for buffer in buffers] == [0] * 3
    assert [cma.cma_region_unregister(each) for each in (reg, early)] == [0, 0]
    assert cma.cma_set_defaults(None, "") == 0
    cma.default_context._allocators.registered.pop()


def test_errors_are_addresses_of_the_platform_whatever_the_device_drives():
    answer = CmaContext(width=32).cma_alloc(None, None, 1, 0)
    assert (answer.value, answer.space.width, IS_ERR_VALUE(answer)) == (error_value(errno.EINVAL, 32), 32, True)
    assert errno_of(answer) == -errno.EINVAL
    assert errno_of(error_value(errno.ENOMEM, 32), 32) == -errno.ENOMEM


def test_allocating_in_one_region_tells_taken_from_full():
    wild = Wild()
    cma = CmaContext(allocators=[wild])
    (reg,) = regions(cma, "pool")
    cma.alloc_from_region(reg, PAGE)
    wild.answer = lambda reg, size: cma_chunk(reg.start, size)
    with pytest.raises(AddressInUse) as caught:
        cma.alloc_from_region(reg, PAGE)
    assert str(caught.value) == (
        "the allocator 'wild' answered cma_chunk(start=1073741824, size=4096, region=None) for 4096 bytes, "
        "over the live chunk at 0x40000000"
    )
    assert len(wild.freed) == 1  # it has its chunk back


def test_a_plug_in_that_will_not_even_take_its_garbage_back(caplog):
    wild = Wild()
    cma = CmaContext(allocators=[wild])
    (reg,) = regions(cma, "pool")
    cma.alloc_from("pool", PAGE)
    wild.answer, wild.free = (lambda reg, size: cma_chunk(reg.start, size)), boom
    with caplog.at_level(logging.WARNING, "cma_compat"):
        assert errno_of(cma.cma_alloc_from_region(reg, PAGE)) == -errno.EADDRINUSE
    assert (
        caplog.records[0].getMessage().startswith("the allocator 'wild' in free raised ValueError: I am broken; after:")
    )
    cma.check()
