import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import Busy, InvalidArgument, NoMemory
from swiommu.region import Bitmap
from swiommu.region.mainline import CmaArea, bitmap_text, debugfs, sysfs

PAGE = 4096


def area(pages=64, *, order=0, profile="6.12", name="camera"):
    return CmaArea(name, Bitmap(0x4000_0000, pages * PAGE, order_per_bit=order, profile=profile))


def test_debugfs_before_and_after_ranges():
    assert dict(debugfs([area()])) == {
        "camera/base_pfn": "262144\n",
        "camera/bitmap": "0 0\n",
        "camera/count": "64\n",
        "camera/maxchunk": "64\n",
        "camera/order_per_bit": "0\n",
        "camera/used": "0\n",
    }
    newer = debugfs([area(profile="7.3")])
    assert list(newer) == [
        *(f"camera/{name}" for name in ("count", "maxchunk", "order_per_bit")),
        *(f"camera/ranges/0/{name}" for name in ("base_pfn", "bitmap")),
        "camera/used",
    ]
    assert newer["camera/base_pfn"] == newer["camera/ranges/0/base_pfn"] == "262144\n"
    assert newer.entries("camera")[:3] == ["alloc", "base_pfn", "bitmap"]


def test_sysfs_has_two_files_more_from_6_15_on():
    assert list(sysfs([area()])) == [
        f"camera/{name}" for name in ("alloc_pages_fail", "alloc_pages_success", "release_pages_success")
    ]
    assert sysfs([area(profile="7.3")]).entries("camera")[2:] == [
        "available_pages",
        "release_pages_success",
        "total_pages",
    ]


def test_several_ranges():
    both = CmaArea.over("numa0", [(0x10_0000, 0x4000), (0x20_0000, 0x8000)])
    tree = debugfs([both])
    tree["numa0/alloc"] = "6"
    texts = ["numa0/used", "numa0/count", "numa0/maxchunk", "numa0/ranges/0/bitmap", "numa0/ranges/1/bitmap"]
    assert [tree[path] for path in texts] == ["6\n", "12\n", "4\n", "0\n", "63\n"]
    assert [tree[f"numa0/ranges/{r}/base_pfn"] for r in (0, 1)] == ["256\n", "512\n"]
    assert tree["numa0/base_pfn"] == "256\n"


def test_free_gives_back_the_latest_first_and_splits():
    camera = area()
    tree = debugfs([camera])
    for count in ("10", "20", "0x4\n"):
        tree["camera/alloc"] = count
    tree["camera/free"] = "6"  # the 4 pages, and 2 from the front of the 20
    assert camera.allocator.free_runs() == [(10, 2), (30, 34)]
    tree["camera/free"] = "1000"
    assert tree["camera/used"] == "0\n"
    counts = sysfs([camera])
    assert [counts[f"camera/{what}"] for what in ("alloc_pages_success", "release_pages_success")] == ["34\n", "34\n"]


def test_free_does_not_split_where_a_bit_is_several_pages():
    camera = area(order=2)
    tree = debugfs([camera])
    tree["camera/alloc"] = "8"
    tree["camera/alloc"] = "8"
    tree["camera/free"] = "12"  # one whole, and the other can't be split
    assert tree["camera/used"] == "8\n"
    tree["camera/free"] = "4"
    assert tree["camera/used"] == "8\n"


def test_used_differs_where_a_request_is_padded_to_whole_bits():
    pages = {}
    for profile in ("6.12", "7.3"):
        camera = area(order=3, profile=profile)
        camera.alloc(3)
        pages[profile] = debugfs([camera])["camera/used"]
    assert pages == {"6.12": "8\n", "7.3": "3\n"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("65", "65 pages can't be allocated: no place for 65 pages aligned to 2**0 pages"),
        ("0", "0 pages can't be allocated: 0 pages aligned to 2**0 pages can't be allocated"),
        ("0xffffffff", "-1 pages can't be allocated: -1 pages aligned to 2**0 pages can't be allocated"),
    ],
)
def test_alloc_fails_with_enomem_whatever_the_reason(text, sentence):
    camera = area()
    with pytest.raises(NoMemory) as raised:
        debugfs([camera])["camera/alloc"] = text
    assert str(raised.value).startswith(sentence)
    assert camera.pages_failed == (65 if text == "65" else 0)


def test_a_busy_area_counts_failed_pages():
    camera = area(profile="7.3")
    camera.allocator.set_busy(0x40000, 64, 1)
    with pytest.raises(Busy):
        camera.alloc(4)
    assert sysfs([camera])["camera/alloc_pages_fail"] == "4\n"


def test_free_of_a_negative_number_is_refused():
    with pytest.raises(InvalidArgument, match=r"^-2 pages can't be freed$"):
        debugfs([area()])["camera/free"] = "0xfffffffe"


def test_names():
    assert CmaArea(None, Bitmap(0, PAGE), index=3).name == "cma3\n"
    assert area(name="x" * 80).name == "x" * 63
    first, second = area(1), area(2)
    assert dict(debugfs([first, second]))["camera/count"] == "1\n"
    assert dict(sysfs([first, second])) == {}
    assert debugfs([area(name="../up"), first]).entries() == ["camera"]
    assert sysfs([area(name="a/b"), area(name="cma0\n")]).entries() == ["a!b", "cma0\n"]
    assert sysfs([area(name=".."), first]).entries() == []


@given(st.integers(1, 200), st.integers(0, 3), st.lists(st.tuples(st.integers(0, 199), st.integers(1, 40)), max_size=8))
def test_bitmap_text_is_the_bits(pages, order, taken):
    bitmap = Bitmap(0, pages * PAGE, order_per_bit=order)
    bits = [False] * (pages >> order)
    for start, count in taken:
        if start + count <= len(bits) and not any(bits[start : start + count]):
            bitmap.reserve((start << order) * PAGE, (count << order) * PAGE)
            bits[start : start + count] = [True] * count
    words = [int(word) for word in bitmap_text(bitmap).split()]
    assert len(words) == -(-len(bits) // 32)
    assert [bool(words[at // 32] >> at % 32 & 1) for at in range(len(bits))] == bits
