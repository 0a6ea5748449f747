import itertools
import random
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysSpace
from swiommu.errors import InvalidArgument
from swiommu.region import (
    BestFit,
    Bitmap,
    Buddy,
    Cause,
    Region,
    allocator_names,
    area_svg,
    explain_failure,
    make_allocator,
    statistics,
)

PAGE = 4096


@given(
    st.sampled_from(["best_fit", "bitmap", "buddy", "first_fit", "tlsf"]),
    st.sets(st.integers(0, 31)),
    st.integers(1, 34),
    st.integers(0, 6),
)
def test_the_facts_are_what_looking_at_every_page_says(name, taken, pages, order):
    allocator = make_allocator(name, 32 * PAGE, 32 * PAGE)
    for page in taken:
        allocator.reserve((32 + page) * PAGE, PAGE)
    holes, size, align = allocator.holes(), pages * PAGE, PAGE << order
    facts = allocator.explain_failure(size, align)
    assert allocator.holes() == holes

    def room(start, length, step):
        places = [at for at in range(start, start + length, PAGE) if at % step == 0]
        return start + length - places[0] if places else 0

    assert (facts.size, facts.align, facts.free_space, facts.holes) == (
        size,
        align,
        (32 - len(taken)) * PAGE,
        len(holes),
    )
    assert facts.largest == max([length for _, length in holes], default=0)
    assert facts.large_enough == sum(length >= size for _, length in holes)
    assert facts.aligned == sum(room(*hole, align) >= size for hole in holes)
    assert facts.largest_aligned == max([room(*hole, align) for hole in holes], default=0)
    assert (facts.cause is Cause.NONE) is allocator.fits(size, align)
    # What would succeed does, and nothing larger.
    assert facts.would_fit_size == max(
        [each * PAGE for each in range(1, 33) if allocator.fits(each * PAGE, align)], default=0
    )
    steps = [PAGE << each for each in range(7)]
    assert min(facts.would_fit_align, steps[-1]) == max(
        [each for each in steps if allocator.fits(size, each)], default=0
    )


@pytest.mark.parametrize(
    ("pages", "order", "cause", "text"),
    [
        (
            2,
            0,
            Cause.NONE,
            (
                "8192 bytes aligned to 4096: it fits. 20480 bytes are free in 2 holes, the largest of "
                "12288; 2 holes are "
                "large enough, 2 of them with an aligned place. 2@1+3@5=> 5 free of 8 total pages"
            ),
        ),
        (
            6,
            0,
            Cause.TOO_LITTLE,
            (
                "24576 bytes aligned to 4096: too little is free. 20480 bytes are free in 2 holes, the "
                "largest of 12288; 0 "
                "holes are large enough, 0 of them with an aligned place. At this alignment 12288 bytes "
                "would fit, this "
                "size at no alignment. 2@1+3@5=> 5 free of 8 total pages"
            ),
        ),
        (
            4,
            0,
            Cause.FRAGMENTED,
            (
                "16384 bytes aligned to 4096: enough is free, but not in one hole. 20480 bytes are free in "
                "2 holes, the "
                "largest of 12288; 0 holes are large enough, 0 of them with an aligned place. At this alignment 12288 "
                "bytes would fit, this size at no alignment. 2@1+3@5=> 5 free of 8 total pages"
            ),
        ),
        (
            2,
            2,
            Cause.MISALIGNED,
            (
                "8192 bytes aligned to 16384: a hole is large enough, but has no aligned place. 20480 "
                "bytes are free in 2 "
                "holes, the largest of 12288; 2 holes are large enough, 0 of them with an aligned place. The alignment "
                "leaves 0 bytes of the largest place. At this alignment nothing would fit, this size at an "
                "alignment of "
                "8192. 2@1+3@5=> 5 free of 8 total pages"
            ),
        ),
    ],
)
def test_causes_are_told_in_sentences(pages, order, cause, text):
    area = Bitmap(8 * PAGE, 8 * PAGE)
    for page in (0, 3, 4):
        area.reserve((8 + page) * PAGE, PAGE)
    facts = area.explain_failure(pages * PAGE, PAGE << order)
    assert (facts.cause, str(facts)) == (cause, text)


def test_an_allocator_may_refuse_what_has_a_place():
    buddy = Buddy(0, 8 * PAGE)
    buddy.reserve(0, PAGE)
    facts = buddy.explain_failure(5 * PAGE, PAGE)
    assert (facts.cause, facts.aligned, facts.would_fit_size) == (Cause.REFUSED, 1, 4 * PAGE)
    busy = Bitmap(0, 8 * PAGE)
    busy.set_busy(3, 1, 1)
    facts = busy.explain_failure(5 * PAGE, PAGE)
    assert (facts.cause, facts.aligned, facts.would_fit_size) == (Cause.REFUSED, 1, 4 * PAGE)


def test_just_enough_in_pieces_is_not_too_little():
    fit = BestFit(0, 5 * PAGE)
    fit.reserve(2 * PAGE, PAGE)
    assert fit.explain_failure(4 * PAGE, PAGE).cause is Cause.FRAGMENTED
    assert fit.explain_failure(5 * PAGE, PAGE).cause is Cause.TOO_LITTLE


def test_what_no_allocator_may_be_asked_is_not_explained():
    with pytest.raises(InvalidArgument) as caught:
        BestFit(0, 8 * PAGE).explain_failure(PAGE, 3)
    assert str(caught.value) == "an alignment of 3 bytes is not a power of two of at least a page of 4096 bytes"


def test_an_allocator_from_elsewhere_is_explained_and_counted_too():
    class Plain:
        """Nothing but the protocol, and no more room."""

        name, start, size, page_size, free_space = "plain", 0, 8 * PAGE, PAGE, 0

        def fits(self, size, align):
            return False

        def holes(self):
            return []

    facts = explain_failure(Plain(), PAGE, PAGE)
    assert (facts.cause, facts.largest, facts.would_fit_size, facts.would_fit_align) == (Cause.TOO_LITTLE, 0, 0, 0)
    counted = statistics(Plain())
    assert (counted.holes, counted.taken, counted.mean, counted.fragmentation, counted.by_order) == (
        0, 8 * PAGE, 0.0, 0.0, (),
    )  # fmt: skip


def test_kernels_print_extents_in_two_ways():
    for profile, text in (
        ("6.12", "2@1+3@5=> 5 free of 8 total pages"),
        ("7.3", "+2@1+3@5=> 5 free of 8 total pages"),
    ):
        area = Bitmap(0, 8 * PAGE, profile=profile)
        for page in (0, 3, 4):
            area.reserve(page * PAGE, PAGE)
        assert area.free_extents() == text
    # With several pages a bit the newer kernels count what was asked for, the older what is clear.
    for profile, text in (("6.12", "4@1=> 4 free of 8 total pages"), ("7.3", "+4@1=> 5 free of 8 total pages")):
        area = Bitmap(0, 8 * PAGE, order_per_bit=2, profile=profile)
        area.alloc_pages(3, 0)
        assert area.free_extents() == text


def test_statistics_count_holes_by_their_size():
    fit = BestFit(0, 16 * PAGE)
    for page in (1, 4, 15):
        fit.reserve(page * PAGE, PAGE)
    counted = fit.statistics()
    assert (counted.holes, counted.largest, counted.smallest, counted.by_order) == (3, 10 * PAGE, PAGE, (1, 1, 0, 1))
    assert counted.mean == 13 * PAGE / 3
    assert counted.fragmentation == 1 - 10 / 13
    buddy = Buddy(0, 16 * PAGE)
    buddy.alloc(3 * PAGE, PAGE)
    assert (buddy.statistics().padding, buddy.statistics().taken) == (PAGE, 4 * PAGE)


def rectangles(svg):
    root = ET.fromstring(svg)
    return [each for each in root.iter() if each.tag.endswith("}rect")]


def test_a_picture_is_well_formed_whatever_names_hold():
    for name in ["</title><script>alert(1)</script>", "a & b", '"x"', "bell\x07 \x1b[31m", ""]:
        svg = Region(PhysSpace("ram").at(0), 8 * PAGE, name=name).svg()
        assert not [each for each in ET.fromstring(svg).iter() if each.tag.endswith("script")]
        assert "\x07" not in svg
    assert "prefers-color-scheme: dark" in svg


def test_a_picture_of_dust_has_a_bounded_size():
    chance = random.Random(1)
    holes = [(page * PAGE, PAGE) for page in range(0, 200_000, 2) if chance.random() < 0.9]
    svg = area_svg(0, 200_000 * PAGE, holes, title="dust")
    assert 1 <= len(rectangles(svg)) <= 1024
    assert len(svg) < 200_000


@given(st.integers(1, 3000), st.lists(st.integers(0, 2999)), st.integers(0, 1 << 40))
def test_every_byte_of_an_area_is_drawn_once(size, cuts, start):
    cuts = sorted({cut for cut in cuts if cut < size} | {0, size})
    holes = [(start + low, high - low) for low, high in itertools.pairwise(cuts)][::2]
    drawn = rectangles(area_svg(start, size, holes, title="x"))
    spans = [each[0].text.split(" to ") for each in drawn]
    bounds = [(int(low, 16), int(high, 16) + 1) for low, high in spans]
    assert bounds[0][0] == start
    assert all(one[1] == other[0] for one, other in itertools.pairwise(bounds))
    assert start + size <= bounds[-1][1] < start + size + (size + 63) // 64 * 2
    for (low, high), each in zip(bounds, drawn, strict=True):
        free = sum(max(min(high, at + length) - max(low, at), 0) for at, length in holes)
        whole = min(high, start + size) - low
        assert (each.get("class") == "v0") is (free == whole)
        assert (each.get("class") == "v4") is (free == 0)


def lines(svg):
    return [
        [float(each.get(name)) for name in ("x1", "y1", "x2", "y2")]
        for each in ET.fromstring(svg).iter()
        if each.tag.endswith("}line")
    ]


def test_an_edge_is_drawn_through_the_row_that_it_is_in():
    """Rows of 64 cells of a page: an edge is a line as high as its row, at the same part of it as in the area."""
    start = 0x4000_0000
    edges = [start, start + 3 * PAGE, start + 64 * PAGE, start + 130 * PAGE + PAGE // 2]
    svg = area_svg(start, 256 * PAGE, [], edges=edges, title="x")
    rows = sorted({(float(each.get("y")), float(each.get("height"))) for each in rectangles(svg)})
    left = min(float(each.get("x")) for each in rectangles(svg))
    cell = max(float(each.get("width")) for each in rectangles(svg)) / 64
    assert len(rows) == 4
    assert lines(svg) == [
        [left + cell * at, rows[row][0], left + cell * at, sum(rows[row])]
        for row, at in ((0, 0), (0, 3), (1, 0), (2, 2.5))
    ]


def test_a_region_reports_as_its_allocator_does():
    for name in allocator_names():
        region = Region(PhysSpace("ram").at(0x4000_0000), 64 * PAGE, allocator=name, name="camera")
        region.alloc(3 * PAGE)
        assert region.explain_failure(5000).cause is Cause.NONE
        assert region.explain_failure(65 * PAGE).cause is Cause.TOO_LITTLE
        assert region.statistics() == statistics(region.allocator)
        assert region._repr_html_() == region.svg()
        assert "1 chunks" in region.svg()
        assert region.allocator._repr_html_().startswith("<svg")
