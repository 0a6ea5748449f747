"""Areas that lend what is idle: who has to leave, who may stay, what it costs, and how often it fails."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import PhysSpace
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotFound, OutOfRange, SwiommuError
from swiommu.memory import Frames, FrameState, SparseRam
from swiommu.region import Bitmap, Lending, LendingAccount, LentPages, Region, Returns

PAGE = 4096
BASE = 0x40000  # the area's first frame
ERRORS = (Busy, NoMemory)


def area_of(pages, **options):
    return Lending(BASE * PAGE, pages * PAGE, **options)


def message(call, *args, **options):
    with pytest.raises(SwiommuError) as caught:
        call(*args, **options)
    return str(caught.value)


# -- theory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "q", "trials"), [(512, 0.001, 1500), (64, 0.01, 2500), (16, 0.05, 4000), (1, 0.3, 4000)])
def test_one_window_succeeds_as_often_as_no_page_of_it_is_pinned(n, q, trials):
    """(1 - q)^n within four standard deviations; what is moved until a pinned page is met adds up to theory as well."""
    draw = random.Random(7)
    served = moved = 0
    for _ in range(trials):
        area = area_of(n, standing=bytes((FrameState.MOVABLE,)) * n)
        for pfn in range(BASE, BASE + n):
            if draw.random() < q:
                area.pin(pfn)
        expected = area.fits(n * PAGE, PAGE)
        try:
            area.alloc_pages(n, 0)
        except ERRORS:
            assert not expected
            assert area.returns.in_vain == area.returns.moved
        else:
            assert expected
            served += 1
            assert area.returns == Returns(moved=n, asked=1)
        moved += area.returns.moved
    p = (1 - q) ** n
    assert abs(served - trials * p) < 4 * math.sqrt(trials * p * (1 - p))
    before_a_pin = sum((1 - q) ** k for k in range(1, n + 1))
    assert moved / trials == pytest.approx(before_a_pin, rel=0.1)


def test_tries_until_a_place_is_found_are_those_of_independent_windows():
    """At 0.1 % a window of 512 pages fails in 40 % of all cases, so that 1 / 0.599 of them are tried."""
    n, q, draw, tries, rounds = 512, 0.001, random.Random(3), 0, 300
    for _ in range(rounds):
        area = area_of(16 * n, standing=bytes((FrameState.MOVABLE,)) * 16 * n)
        for pfn in range(BASE, BASE + 16 * n):
            if draw.random() < q:
                area.pin(pfn)
        area.alloc_pages(n, 9)
        tries += area.returns.asked
        assert area.returns.busy == area.retries == area.returns.asked - 1
    assert tries / rounds == pytest.approx(1 / (1 - q) ** n, rel=0.15)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 1 << 32))
def test_what_is_dropped_never_makes_an_allocation_fail(sizes, seed):
    """GCMA serves what an empty area serves, at the same places; it drops a page for each frame it takes."""
    area = area_of(128, standing=bytes((FrameState.DROPPABLE,)) * 128)
    plain, draw, live, taken = Bitmap(BASE * PAGE, 128 * PAGE), random.Random(seed), [], 0
    for size in sizes:
        if plain.fits(size * PAGE, PAGE):
            pfn = plain.alloc_pages(size, 0)
            assert area.alloc_pages(size, 0) == pfn
            taken += size
            live.append((pfn, size))
        if live and draw.random() < 0.5:
            chunk = live.pop(draw.randrange(len(live)))
            assert area.release(*chunk)
            plain.release(*chunk)
        area.check()
        assert area.account().idle == 0
    assert (area.returns.dropped, area.returns.moved, area.returns.busy) == (taken, 0, 0)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4), st.booleans()), max_size=30), st.booleans())
@settings(max_examples=50)
def test_with_nobody_pinned_places_are_mainlines(steps, standing):
    states = bytes(FrameState.MOVABLE if standing and pfn % 3 else FrameState.FREE for pfn in range(100))
    area, plain, live = area_of(100, standing=states), Bitmap(BASE * PAGE, 100 * PAGE), []
    for size, order, frees in steps:
        assert area.fits(size * PAGE, PAGE << order) == plain.fits(size * PAGE, PAGE << order)
        if plain.fits(size * PAGE, PAGE << order):
            live.append((plain.alloc_pages(size, order), size))
            assert area.alloc_pages(size, order) == live[-1][0]
        if frees and live:
            pfn, count = live.pop(0)
            area.free(pfn * PAGE, count * PAGE)
            plain.free(pfn * PAGE, count * PAGE)
        area.check()
        assert area.holes() == plain.holes()


# -- contents ---------------------------------------------------------------------------------------------------------


def memory(pages_elsewhere):
    space = PhysSpace("ram", width=40)
    ram, elsewhere = SparseRam(space), Frames(space.at(0x10_0000), pages_elsewhere * PAGE)
    return ram, elsewhere, LentPages(ram, elsewhere)


actions = st.lists(
    st.tuples(st.sampled_from(["put", "put", "drop", "pin", "unpin", "alloc", "free", "take"]), st.integers(0, 99)),
    max_size=40,
)


@given(actions, st.integers(1, 40))
@settings(max_examples=60)
def test_contents_follow_their_pages_whatever_is_taken_back(steps, pages_elsewhere):
    _, elsewhere, pages = memory(pages_elsewhere)
    area = area_of(32, tenants=pages)
    kept, copies, chunks = {}, {}, []
    for number, (action, pick) in enumerate(steps):
        text = b"%d" % number * 9
        if action in {"put", "drop"}:
            if area.account().idle:
                page = pages.put(area, text, droppable=action == "drop")
                (copies if action == "drop" else kept)[page] = text.ljust(PAGE, b"\0")
        elif action in {"pin", "unpin", "take"} and kept:
            page = list(kept)[pick % len(kept)]
            inside = page.pfn >= BASE and area.state(page.pfn)
            if action == "pin" and inside == FrameState.MOVABLE:
                area.pin(page.pfn)
            elif action == "unpin" and inside == FrameState.PINNED:
                area.unpin(page.pfn)
            elif action == "take" and inside != FrameState.PINNED:
                pages.take_away(page)
                del kept[page]
        elif action == "alloc":
            size, align = 1 + pick % 9, PAGE << pick % 3
            if area.fits(size * PAGE, align):
                chunks.append((area.alloc(size * PAGE, align), size * PAGE))
            else:
                with pytest.raises(ERRORS):
                    area.alloc(size * PAGE, align)
        elif action == "free" and chunks:
            area.free(*chunks.pop(pick % len(chunks)))
        area.check()
        elsewhere.check()
        copies = {page: was for page, was in copies.items() if page.pfn is not None}
        assert all(pages.read(page) == was for page, was in (kept | copies).items())
        outside = sum(page.pfn < BASE for page in kept)
        assert elsewhere.free_count == pages_elsewhere - outside
        account = area.account()
        assert account.lent == len(kept) + len(copies) - outside
        assert account.used == sum(size for _, size in chunks) // PAGE
        assert account.reserved == 32


def test_a_dropped_copy_is_gone_and_its_bytes_with_it():
    ram, _, pages = memory(8)
    area = area_of(4, tenants=pages)
    page = pages.put(area, b"secret", droppable=True)
    start = area.alloc(4 * PAGE, PAGE)
    assert message(pages.read, page) == "this page was dropped or taken away"
    assert message(pages.take_away, page) == "this page was dropped or taken away"
    assert ram.read(PhysSpace.at(ram.space, start), 6) == bytes(6)
    assert area.returns == Returns(dropped=1, asked=1)


def test_without_room_elsewhere_nobody_has_to_leave():
    _, elsewhere, pages = memory(2)
    area = area_of(8, tenants=pages)
    letters = [pages.put(area, b"%d" % n) for n in range(3)]
    assert not area.fits(8 * PAGE, PAGE)
    assert message(area.alloc, 8 * PAGE, PAGE) == (
        "migrating pfn 0x40000 for 8 pages aligned to 2**0 pages failed with errno 12 after 0 busy places"
    )
    assert [page.pfn for page in letters] == [BASE, BASE + 1, BASE + 2]
    assert area.returns == Returns(asked=1)
    assert area.fits(2 * PAGE, PAGE)
    assert area.alloc(2 * PAGE, PAGE) == BASE * PAGE
    assert [pages.read(page)[:1] for page in letters] == [b"0", b"1", b"2"]
    assert elsewhere.free_count == 0


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_move_that_fails_half_way_loses_nothing(nth):
    _, elsewhere, pages = memory(8)
    area = area_of(8, tenants=pages)
    letters = [pages.put(area, b"%d" % n) for n in range(3)]
    elsewhere.fail_nth(nth)
    with pytest.raises(NoMemory):
        area.alloc(8 * PAGE, PAGE)
    area.check()
    assert [pages.read(page)[:1] for page in letters] == [b"0", b"1", b"2"]
    assert area.account() == LendingAccount(8, 0, 4 - nth, 4 + nth)
    assert area.returns == Returns(moved=nth - 1, in_vain=nth - 1, asked=1)
    assert area.alloc(8 * PAGE, PAGE) == BASE * PAGE
    assert [pages.read(page)[:1] for page in letters] == [b"0", b"1", b"2"]
    for page in letters:
        pages.take_away(page)
    assert elsewhere.free_count == 8


def test_pages_have_to_fit_and_need_an_idle_frame():
    _, _, pages = memory(8)
    area = area_of(1, tenants=pages)
    assert message(pages.put, area, bytes(PAGE + 1)) == "4097 bytes for a page of 4096: pages are of 4096 here"
    page = pages.put(area, b"")
    assert message(pages.put, area, b"") == f"no frame of {area!r} is idle"
    area.pin(page.pfn)
    assert message(pages.take_away, page) == "one of the 1 frames at 0x40000 is pinned"
    area.unpin(page.pfn)
    pages.take_away(page)
    assert area.account().idle == 1


# -- what is refused --------------------------------------------------------------------------------------------------


def test_who_may_lend_pin_and_give_back():
    area = area_of(8)
    area.lend(BASE, 3)
    area.lend(BASE + 3, droppable=True)
    before = bytes(area._frames)
    assert message(area.lend, BASE + 3, 2) == "not all of the 2 frames at 0x40003 are idle"
    assert message(area.pin, BASE + 3) == "frame 0x40003 is DROPPABLE, not MOVABLE"
    assert message(area.pin, BASE + 5) == "frame 0x40005 is FREE, not MOVABLE"
    assert message(area.unpin, BASE) == "frame 0x40000 is MOVABLE, not PINNED"
    assert message(area.give_back, BASE + 2, 3) == "not all of the 3 frames at 0x40002 are lent"
    for call in (area.lend, area.give_back):
        assert message(call, BASE + 7, 2) == "2 frames at 0x40007 are not all in the area"
        assert message(call, BASE, 0) == "0 frames at 0x40000 are not all in the area"
    assert message(area.state, BASE - 1) == "1 frames at 0x3ffff are not all in the area"
    assert bytes(area._frames) == before
    area.pin(BASE + 1)
    assert message(area.give_back, BASE, 3) == "one of the 3 frames at 0x40000 is pinned"
    assert message(area.alloc, 8 * PAGE, PAGE) == (
        "no place for 8 pages aligned to 2**0 pages: 8 of 8 bits are clear, at most 8 in a row, and 1 places were busy"
    )
    for error, call in ((AddressInUse, area.lend), (Busy, area.give_back), (OutOfRange, area.state)):
        with pytest.raises(error):
            call(BASE + 1 if error is not OutOfRange else 0)
    with pytest.raises(NotFound):
        area.pin(BASE + 1)


def test_a_reservation_takes_back_too_or_takes_nothing():
    area = area_of(16, standing=bytes((FrameState.MOVABLE,)) * 16)
    area.pin(BASE + 5)
    text = "32768 bytes at 0x40000000 can't be taken back: errno 16"
    assert message(area.reserve, BASE * PAGE, 8 * PAGE) == text
    assert area.account() == LendingAccount(16, 0, 16, 0)
    area.check()
    area.reserve((BASE + 8) * PAGE, 8 * PAGE)
    assert area.account() == LendingAccount(16, 8, 8, 0)
    area.free((BASE + 8) * PAGE, 8 * PAGE)
    assert area.account() == LendingAccount(16, 0, 16, 0)
    area.check()


def test_who_stands_ready_is_told_for_every_frame():
    for states, text in (
        (bytes(7), "7 states stand ready for 8 frames"),
        (bytes((1,)) * 8, "frames stand ready for FREE, MOVABLE or DROPPABLE use only"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            area_of(8, standing=states)
        assert str(caught.value) == text


def test_a_callers_own_migration_is_asked_first_and_nothing_moves_in_vain_for_it():
    area = area_of(16, standing=bytes((FrameState.MOVABLE,)) * 16)
    assert area.alloc_pages(4, 2, migrate=lambda pfn, count: 16 if pfn == BASE else 0) == BASE + 4
    assert area.returns == Returns(moved=4, asked=1)
    area.set_busy(BASE, 1, 1)
    assert not area.fits(16 * PAGE, PAGE)


def test_a_region_over_an_area_that_lends():
    space = PhysSpace("ram", width=40)
    area = area_of(64, standing=bytes((FrameState.MOVABLE,)) * 64)
    region = Region(space.at(BASE * PAGE), 64 * PAGE, allocator=area)
    chunks = [region.alloc(5 * PAGE) for _ in range(4)]
    assert area.account() == LendingAccount(64, 20, 44, 0)
    region.check()
    for chunk in chunks:
        region.free(chunk)
    assert area.account() == LendingAccount(64, 0, 64, 0)
    area.fail_nth(1)
    with pytest.raises(NoMemory):
        region.alloc(PAGE)
    assert area.account() == LendingAccount(64, 0, 64, 0)
    region.check()


# -- pins of many frames at once --------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(("lend", "droppable", "pin", "alloc")), st.integers(0, 15)), max_size=20),
    st.lists(st.integers(BASE - 2, BASE + 17), max_size=12),
)
def test_many_pins_are_those_of_one_call_for_each(steps, pfns):
    """Also with frames named twice, of other states, or of no area; unpinned, and in a dry run, all is as before."""
    one, many = (area_of(16) for _ in range(2))
    for area in (one, many):
        for what, at in steps:
            try:
                match what:
                    case "pin":
                        area.pin(BASE + at)
                    case "alloc":
                        area.reserve((BASE + at) * PAGE, PAGE)
                    case _:
                        area.lend(BASE + at, droppable=what == "droppable")
            except SwiommuError:
                continue
    before = bytes(many._frames), list(many._numbers)
    expected = []
    for pfn in pfns:
        try:
            one.pin(pfn)
        except (NotFound, OutOfRange):
            continue
        expected.append(pfn)
    with many.dry_run():
        many.pin_movable(pfns)
    assert (bytes(many._frames), many._numbers) == before
    assert many.pin_movable(pfns) == expected
    assert (many._frames, many._numbers) == (one._frames, one._numbers)
    many.check()
    many.unpin_all(expected)
    assert (bytes(many._frames), many._numbers) == before


def test_a_draw_that_is_interrupted_pins_nothing():
    area = area_of(8, standing=bytes((FrameState.MOVABLE,)) * 8)

    def drawn():
        yield from (BASE, BASE + 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        area.pin_movable(drawn())
    area.check()
    assert area.fits(8 * PAGE, PAGE)


class EachPlace(Lending):
    """Looks at every place, as the kernel does."""

    def _also_busy(self, bit, step, need):
        return 0


@given(
    st.data(),
    st.integers(8, 60),
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=8),
    st.sets(st.integers(0, 59)),
    st.sets(st.integers(0, 59), max_size=3),
)
def test_places_that_are_passed_over_are_those_that_are_busy(data, pages, requests, pinned, busy):
    areas = [kind(0x10000, pages * 4096, standing=bytes([FrameState.MOVABLE]) * pages) for kind in (Lending, EachPlace)]
    hard = data.draw(st.integers(1, 2))
    answers = []
    for area in areas:
        for page in sorted(pinned):
            area.pin_movable([area.base_pfn + page])
        for page in sorted(busy & set(range(pages))):
            area.set_busy(area.base_pfn + page, 1, hard)
        said = []
        for count, order in requests:
            said.append(area.fits(count * 4096, 4096 << order))
            try:
                said.append(area.alloc_pages(count, order))
            except SwiommuError as error:
                said.append((type(error), str(error)))
            said += [area.retries, area.returns, [area.state(area.base_pfn + page) for page in range(pages)]]
        area.check()
        answers.append(said)
    assert answers[0] == answers[1]


def test_a_search_asks_once_for_each_pinned_frame(monkeypatch):
    """A pin in every range of a large area: there are as many busy places as pages."""
    area = Lending(0x10000, 4096 * 4096, standing=bytes([FrameState.MOVABLE]) * 4096)
    area.pin_movable(range(area.base_pfn + 50, area.base_pfn + 4096, 64))
    calls = []
    take_back = Lending._take_back
    monkeypatch.setattr(Lending, "_take_back", lambda *all_of, **more: calls.append(0) or take_back(*all_of, **more))
    with pytest.raises(Busy):
        area.alloc_pages(64, 0)
    assert (area.retries, area.returns.asked, len(calls)) == (4033, 4033, 64)
