"""User-space mappings and the marks that tell of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.requests.pairing import UserMaps
from swiommu.trace import Mark, parse_mark


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("VFIO MAP iova=0x1000 size=0x2000 prot=rw rc=0", Mark(True, 0x1000, 0x2000, refused=False)),
        ("VFIO MAP iova=4096 size=8192 rc=0", Mark(True, 0x1000, 0x2000, refused=False)),
        ("VFIO UNMAP iova=0x0 size=0x1000 rc=0", Mark(False, 0, 0x1000, refused=False)),
        ("VFIO MAP iova=0x1000 size=0x2000 rc=17", Mark(True, 0x1000, 0x2000, refused=True)),
        ("VFIO UNMAP iova=0x1000 size=0 rc=0", Mark(False, 0x1000, 0, refused=True)),
        ("VFIO MAP iova=0x1000 size=0x2000", None),
        ("VFIO MAP iova=0x1000 size=many rc=0", None),
        ("VFIO PHASE two", None),
        ("VFIO", None),
        ("", None),
        ("PHASE VFIO MAP iova=0x1000 size=0x2000 rc=0", None),
    ],
)
def test_a_mark_is_read_or_is_none(text, mark):
    assert parse_mark(text) == mark


@given(text=st.text(max_size=60) | st.from_regex(r"VFIO (MAP|UNMAP)( (iova|size|rc)=\S{0,9}){0,4}", fullmatch=True))
def test_no_text_is_too_odd(text):
    mark = parse_mark(text)
    assert mark is None or isinstance(mark, Mark)


@given(data=st.data())
def test_an_unmap_ends_what_lies_inside_it_and_nothing_else(data):
    maps, live = UserMaps(), {}
    for index in range(data.draw(st.integers(1, 20))):
        start, size = data.draw(st.integers(0, 30)), data.draw(st.integers(1, 8))
        maps.add(index, start, size)
        live[index] = (start, start + size)
        if data.draw(st.booleans()):
            start, stop = data.draw(st.integers(0, 30)), data.draw(st.integers(31, 45))
            inside = [i for i, (low, high) in live.items() if start <= low and high <= stop]
            taken = maps.take(start, stop - start)
            assert sorted(taken) == inside
            starts = [live.pop(i)[0] for i in taken]
            assert starts == sorted(starts)
