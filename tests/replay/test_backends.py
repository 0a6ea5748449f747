"""The machinery of single designs: what a driver gets, what a probe may not change, what the system is charged."""

import attrs
import pytest

from swiommu.errors import BlockExceeded, NoMemory, NotSupported, OutOfRange, SwiommuError
from swiommu.replay import PRESETS, Knobs, equal_plan, find_design, machine_plan, plan_of_size
from swiommu.replay.backends import make_backend
from swiommu.replay.cause import Cause, cause_of
from swiommu.requests import Area, Occupancy

PAGE = 4096
MIB = 1 << 20
BASE = 0x4000_0000


@pytest.fixture
def backend_of(make_workload):
    """A design over 2 MiB at 1 GiB (or another area), in one of the memory modes."""

    def make(name, *, area=Area(BASE // PAGE, 512, ()), plan=equal_plan, knobs=None, occupancies=(), delta=0):  # noqa: B008
        workload = make_workload([], [], area=area, occupancies=occupancies)
        design = find_design(name)
        return make_backend(
            attrs.evolve(design, delta=delta) if delta else design, plan(workload), workload, knobs or Knobs()
        )

    return make


def place(handle):
    return handle.iova.start.value if hasattr(handle, "iova") else handle.start.value


@pytest.mark.parametrize("name", ["carveout-best-fit", "cma-bitmap", "software-iommu"])
def test_alignment_is_that_of_the_size_up_to_a_mebibyte_and_absolute(name, backend_of, make_request):
    backend = backend_of(name, area=Area(BASE // PAGE + 16, 4096 - 16, ()))
    backend.begin(make_request(0, size=PAGE), ())
    for number, (pages, align) in enumerate([(3, 4), (8, 8), (100, 128), (256, 256), (700, 256)]):
        assert place(backend.begin(make_request(number, size=pages * PAGE - 5), ())) % (align * PAGE) == 0
    backend = backend_of(name, area=Area(BASE // PAGE + 16, 4096 - 16, ()), knobs=Knobs(align_order=2))
    assert place(backend.begin(make_request(0, size=256 * PAGE), ())) == BASE + 16 * PAGE


def test_a_probe_beyond_the_mask_does_not_reorder_best_fits_holes(backend_of, make_request):
    """Of equal holes the newest is tried first; a try that takes the older one would make it the newest."""
    places = []
    for probes in (False, True):
        backend = backend_of("carveout-best-fit", area=Area(BASE // PAGE, 512, ()))
        start = backend.region.start
        for first, count in ((0, 8), (17, 3), (29, 483)):
            backend.region.reserve(start + first * PAGE, count * PAGE)
        backend.region.free(backend.region.reserve(start + 20 * PAGE, 9 * PAGE))
        if probes:  # eight pages aligned to eight fit into the older hole only
            assert backend.probe(make_request(0, size=8 * PAGE, mask=BASE + 100 * PAGE - 1), ()) is None
        places.append(place(backend.begin(make_request(1, size=5 * PAGE), ())))
        backend.region.check()
    assert places == [BASE + 24 * PAGE] * 2


@pytest.mark.parametrize("name", ["carveout-best-fit", "cma-bitmap", "software-iommu"])
def test_a_chunk_beyond_the_mask_is_refused_and_given_back(name, backend_of, make_request):
    backend = backend_of(name)
    room = backend.room()
    near = make_request(0, size=4 * PAGE, mask=BASE + 2 * PAGE)
    assert backend.probe(near, ()) is Cause.MASK
    with pytest.raises(OutOfRange) as caught:
        backend.begin(near, ())
    assert cause_of(caught.value) is Cause.MASK
    assert backend.room() == room
    assert backend.probe(make_request(1, size=4 * PAGE, mask=BASE + 4 * PAGE - 1), ()) is None
    backend.begin(make_request(1, size=4 * PAGE, mask=BASE + 4 * PAGE - 1), ())


@pytest.mark.parametrize("delta", [MIB, -MIB, 0x7000_0000, -0x4010_0000])
def test_what_a_shifted_device_reaches_is_asked_of_its_bus_addresses(delta, backend_of, make_request):
    backend = backend_of("software-iommu", delta=delta)
    for mask in (BASE + delta + 4 * PAGE - 1, BASE + delta + 4 * PAGE - 2, BASE + 4 * PAGE - 1, 0xFFFF_FFFF):
        for request in (
            make_request(0, size=4 * PAGE, mask=max(mask, 0)),
            make_request(1, "MAP", 100, mask=max(mask, 0), pieces=((BASE - 100, 100),)),
        ):
            fits = backend.probe(request, ()) is None
            lowest = BASE - (100 if request.pieces else 0) + delta
            assert fits == (lowest >= 0 and lowest + request.size - 1 <= request.mask), (request, lowest)
            if fits:
                backend.end(request, backend.begin(request, ()))
            else:
                with pytest.raises(SwiommuError):
                    backend.begin(request, ())
    assert backend.room() == 2 * MIB


def test_in_the_recorded_machine_the_area_is_choosy_and_pages_stand_behind_it(backend_of, make_request):
    backend = backend_of("cma-bitmap", plan=machine_plan)
    asked = {"size": 2 * PAGE, "gfp": "GFP_KERNEL", "translated": False}
    for other in ({"size": PAGE}, {"gfp": "GFP_ATOMIC"}, {"translated": True}):
        handle = backend.begin(make_request(0, **(asked | other)), ())
        assert not hasattr(handle, "start"), other
    assert place(backend.begin(make_request(0, **asked), ())) == BASE
    assert backend.begin(make_request(0, size=4 * MIB), ()).size == 4 * MIB
    # Both refuse it, and the limit of the area is told: the page allocator was asked only after it.
    large, waits = make_request(0, size=4 * MIB + 1), make_request(0, size=4 * MIB + 1, gfp="GFP_ATOMIC")
    with pytest.raises(NoMemory) as caught:
        backend.begin(large, ())
    assert str(caught.value) == "4198400 bytes were asked for and 2088960 are free"
    with pytest.raises(BlockExceeded) as caught:
        backend.begin(waits, ())
    assert str(caught.value) == "a block of 8388608 bytes is beyond the page allocator's 4194304"
    assert (backend.probe(large, ()), backend.probe(waits, ())) == (Cause.MEMORY, Cause.BLOCK)


def test_equal_memory_serves_everything_from_the_region_and_nothing_behind_it(backend_of, make_request):
    backend = backend_of("cma-bitmap")
    for facts in ({"size": PAGE}, {"gfp": "GFP_ATOMIC"}, {"translated": True}):
        assert hasattr(backend.begin(make_request(0, **facts), ()), "start")
    with pytest.raises(NoMemory):
        backend.begin(make_request(0, size=3 * MIB), ())


@pytest.mark.parametrize("name", ["cma-bitmap", "software-iommu"])
def test_busy_pages_are_passed_over_for_this_once(name, backend_of, make_request):
    backend = backend_of(name, plan=machine_plan)
    busy = (BASE // PAGE + 1, BASE // PAGE + 9)
    request = make_request(0, size=8 * PAGE)
    assert backend.probe(request, busy) is None
    handle = backend.begin(request, busy)
    assert place(handle) == BASE + 16 * PAGE
    assert place(backend.begin(make_request(1, size=8 * PAGE), ())) == BASE
    backend.end(request, handle)
    everything = make_request(2, size=8 * MIB)
    assert backend.probe(everything, tuple(range(BASE // PAGE, BASE // PAGE + 512))) is Cause.MEMORY


def test_what_was_taken_before_the_trace_is_neither_live_nor_idle_and_comes_back_in_parts(backend_of, make_request):
    given_back = Occupancy(BASE // PAGE + 4, 8, 0, was_start_extent=True)
    backend = backend_of("cma-bitmap", area=Area(BASE // PAGE, 512, ((0, 32),)), occupancies=[given_back])
    usage = backend.usage()
    assert (usage.idle, usage.reserved, usage.lendable) == (480 * PAGE, 2 * MIB, 480 * PAGE)
    assert place(backend.begin(make_request(0, size=8 * PAGE), ())) == BASE + 32 * PAGE
    backend.vacate(given_back, None)
    assert place(backend.begin(make_request(1, size=4 * PAGE), ())) == BASE + 4 * PAGE
    backend.region.check()


def test_a_background_allocation_that_does_not_fit_is_nobodys(backend_of):
    backend = backend_of("cma-bitmap")
    occupancy = Occupancy(0, 1024, 0)
    assert backend.occupy(occupancy) is None
    backend.vacate(occupancy, None)
    taken = backend.occupy(Occupancy(0, 100, 6))
    assert taken.start.value % (64 * PAGE) == 0
    backend.vacate(occupancy, taken)
    assert backend.room() == 2 * MIB


def test_only_mainline_lends_what_is_idle(backend_of):
    assert backend_of("carveout-best-fit").usage().lendable == 0
    assert backend_of("cma-bitmap").usage().lendable == 2 * MIB


@pytest.mark.parametrize("name", PRESETS)
def test_whatever_was_begun_and_ended_leaves_everything_as_it_was(name, backend_of, make_request):
    backend = backend_of(name)
    requests = [make_request(n, size=(n + 1) * 1000, direction="TO_DEVICE", device=f"d{n % 3}") for n in range(20)]
    requests += [make_request(n, "MAP", 5000, direction="TO_DEVICE", device=f"d{n % 3}") for n in range(20, 30)]
    first = make_request(99, device="d0"), make_request(98, device="d1"), make_request(97, device="d2")
    for request in first:  # the domains of the three devices, which stay
        backend.end(request, backend.begin(request, ()))
    backend.advance(1 << 40)  # and what waits for a flush
    before = backend.usage(), backend.room()
    handles = [backend.begin(request, ()) for request in requests]
    assert backend.usage().internal > 0
    for request, handle in zip(requests[::2] + requests[1::2], handles[::2] + handles[1::2], strict=True):
        backend.end(request, handle)
    backend.advance(1 << 41)
    assert (backend.usage(), backend.room()) == before


@pytest.mark.parametrize("name", [name for name, design in PRESETS.items() if not design.has_hardware])
def test_a_user_mapping_needs_translation(name, backend_of, make_request):
    backend = backend_of(name)
    user = make_request(0, "USERMAP", PAGE, iova=0x1000, pieces=((BASE, PAGE),))
    assert backend.probe(user, ()) is Cause.TRANSLATION
    with pytest.raises(NotSupported):
        backend.begin(user, ())


def test_an_iommus_own_memory_is_not_translated(backend_of, make_request):
    backend = backend_of("iommu-strict")
    queue = make_request(0, size=5 * PAGE, is_iommu=True)
    room = backend.room()
    handle = backend.begin(queue, ())
    assert (room - backend.room(), backend.counters.maps, backend.usage().tables) == (8 * PAGE, 0, 0)
    assert backend.usage().internal == 3 * PAGE
    backend.end(queue, handle)
    assert backend.room() == room


def test_a_failed_allocation_behind_an_iommu_gives_everything_back(backend_of, make_request):
    backend = backend_of("iommu-strict", plan=lambda workload: plan_of_size(workload, 2 * MIB))
    kept = backend.begin(make_request(0, size=300 * PAGE), ())
    room, counters = backend.room(), attrs.evolve(backend.counters)
    for size in (4 * MIB, room):  # too much data; just no page for the tables
        assert backend.probe(make_request(1, size=size), ()) is Cause.MEMORY
        with pytest.raises(NoMemory):
            backend.begin(make_request(1, size=size), ())
        assert backend.room() == room
        assert attrs.evolve(backend.counters, table_peak=0) == attrs.evolve(counters, table_peak=0)
    backend.end(make_request(0, size=300 * PAGE), kept)


def test_devices_of_one_group_share_a_domain_and_others_do_not(backend_of, make_request):
    backend = backend_of("iommu-strict")
    one, same = (backend.begin(make_request(n, group="g", device=f"d{n}"), ()) for n in range(2))
    other = backend.begin(make_request(2, group="h"), ())
    assert one.domain is same.domain is not other.domain
    assert other.iova.start.value == one.iova.start.value
    assert backend.usage().tables == 2 * 4 * PAGE


def test_a_map_behind_an_iommu_covers_whole_pages_of_each_piece(backend_of, make_request):
    backend = backend_of("iommu-strict")
    handle = backend.begin(make_request(0, "MAP", 300, pieces=((BASE + 0xF80, 0x100), (0x9000_0000, 44))), ())
    assert [(piece.start.value, piece.size) for piece in handle.pieces] == [(BASE, 2 * PAGE), (0x9000_0000, PAGE)]
    assert backend.counters.maps == 2


def test_random_frames_draw_alike_with_the_same_seed_and_scatter(backend_of, make_request):
    def frames(seed):
        backend = backend_of("iommu-strict", knobs=Knobs(frames="random", seed=seed))
        handle = backend.begin(make_request(0, size=64 * PAGE), ())
        backend.probe(make_request(1, size=16 * PAGE), ())
        other = backend.begin(make_request(2, size=64 * PAGE), ())
        return [piece.start.value for mapping in (handle, other) for piece in mapping.pieces]

    assert frames(1) == frames(1) != frames(2)
    assert len(frames(1)) > 100


@pytest.mark.parametrize("name", ["iommu-strict", "iommu-lazy"])
def test_only_drawn_frames_go_back_to_be_drawn_whatever_a_driver_maps(name, backend_of, make_request):
    """The pages of a MAP are numbered in the recorded machine, and may have the numbers of frames that were drawn."""
    backend = backend_of(name, knobs=Knobs(frames="random"))
    drawn = backend.begin(make_request(0, size=200 * PAGE), ())
    room = backend.room()
    pages = make_request(1, "MAP", 200 * PAGE, pieces=tuple((piece.start.value, PAGE) for piece in drawn.pieces))
    backend.end(pages, backend.begin(pages, ()))
    assert backend.probe(pages, ()) is None
    backend.advance(10**9)  # a lazy design's tables are back
    assert backend.room() == room
    tables = backend.usage().tables
    backend.end(make_request(0, size=200 * PAGE), drawn)
    backend.advance(2 * 10**9)
    backend.frames.check()
    assert backend.room() == room + 200 * PAGE + tables - backend.usage().tables


def test_a_group_has_one_domain_in_which_shared_bytes_are_recorded_once(backend_of, make_request):
    backend = backend_of("software-iommu")
    page, others = ((0x8000_0000, PAGE),), ((0x8000_0800, PAGE), (0x9000_0000, PAGE), (BASE, PAGE))
    first = backend.begin(make_request(0, "MAP", PAGE, device="vcodec", group="media", pieces=page), ())
    again = backend.begin(make_request(1, "MAP", 3 * PAGE, device="camera", group="media", pieces=others), ())
    apart = backend.begin(make_request(2, "MAP", PAGE, device="nvme", pieces=page), ())
    assert [[place(mapping) for mapping in handle] for handle in (first, again, apart)] == [
        [0x8000_0000],
        [0x9000_0000],  # the first of its pieces is recorded already, the last is the region's
        [0x8000_0000],
    ]
    assert first[0].domain is again[0].domain is not apart[0].domain
    chunks = [backend.begin(make_request(n, device=f"d{n}", group="media"), ()) for n in (3, 4)]
    assert {chunk.domain for chunk in chunks} == {first[0].domain}
    backend.end(make_request(0, "MAP", PAGE, device="vcodec", group="media", pieces=page), first)
    anew = backend.begin(make_request(5, "MAP", PAGE, device="camera", group="media", pieces=page), ())
    assert [place(mapping) for mapping in anew] == [0x8000_0000]


@pytest.mark.parametrize(("facts", "highest"), [({}, 0xFFFF_F000), ({"is_pci": False}, (1 << 48) - PAGE)])
def test_a_device_on_pci_gets_addresses_below_4_gib_first(facts, highest, backend_of, make_request):
    backend = backend_of("iommu-strict")
    assert place(backend.begin(make_request(0, translated=True, mask=(1 << 64) - 1, **facts), ())) == highest


def test_what_exceeds_all_memory_is_told_without_a_domain(make_request, make_workload, monkeypatch):
    """Eighty thousand such requests took half a minute, each making a domain and taking it down."""
    requests = [make_request(number, size=64 << 20, censored=True, line=number + 1) for number in range(50)]
    workload = make_workload(requests, [(1, number, 0) for number in range(50)])
    for name in ("iommu-strict", "iommu-lazy", "shim-over-iommu"):
        made = []
        design = find_design(name)
        backend = make_backend(design, plan_of_size(workload, 2 << 20), workload, Knobs())
        monkeypatch.setattr(backend, "_make_domain", made.append)
        assert {backend.probe(request, ()) for request in requests} == {Cause.MEMORY}
        assert made == []
