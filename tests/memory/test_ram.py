import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysSpace
from swiommu.errors import AddressOverflow, InvalidArgument, SpaceMismatch
from swiommu.memory import SparseRam

SPACE = PhysSpace("ram", width=16)
LIMIT = 1 << 16

starts = st.integers(0, LIMIT - 1) | st.sampled_from([0, 0xFFF, 0x1000, 0x1001, LIMIT - 1])
operations = st.one_of(
    st.tuples(st.just("write"), starts, st.binary(max_size=9000)),
    st.tuples(st.just("fill"), starts, st.tuples(st.integers(0, 9000), st.sampled_from([0, 0, 1, 255]))),
    st.tuples(st.just("read"), starts, st.integers(0, 9000)),
)


@given(st.lists(operations, max_size=12))
def test_it_reads_what_a_plain_bytearray_reads(steps):
    ram, twin = SparseRam(SPACE), bytearray(LIMIT)
    for verb, start, what in steps:
        addr = SPACE.at(start)
        if verb == "write":
            data = what[: LIMIT - start]
            ram.write(addr, data)
            twin[start : start + len(data)] = data
        elif verb == "fill":
            size = min(what[0], LIMIT - start)
            ram.fill(addr, size, what[1])
            twin[start : start + size] = bytes([what[1]]) * size
        else:
            size = min(what, LIMIT - start)
            resident = ram.resident_bytes
            assert ram.read(addr, size) == twin[start : start + size]
            assert ram.resident_bytes == resident
        ram.check()
    assert ram.read(SPACE.at(0), LIMIT) == twin
    non_zero = sum(any(twin[page : page + 4096]) for page in range(0, LIMIT, 4096))
    assert non_zero * 4096 <= ram.resident_bytes <= LIMIT


def test_only_written_pages_are_held():
    space = PhysSpace("ram")
    ram = SparseRam(space)
    ram.write(space.at(0xFFFF_FFFF_FFFF_F000), memoryview(b"\xa5" * 4096))
    ram.write(space.at(8), bytearray(b"x"))
    assert ram.read(space.at(1 << 40), 3) == b"\0\0\0"
    assert ram.resident_bytes == 8192
    ram.fill(space.at(0), 4096, 0)
    assert ram.resident_bytes == 4096
    ram.fill(space.at(0x8010), 16, 0)
    assert ram.resident_bytes == 4096


def test_a_write_counts_bytes_whatever_the_items_of_the_buffer():
    ram = SparseRam(SPACE)
    ram.write(SPACE.at(0xFFE), memoryview(b"abcdefgh").cast("I"))
    assert ram.read(SPACE.at(0xFFE), 9) == b"abcdefgh\0"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda ram: ram.write(SPACE.at(LIMIT - 2), b"abc"),
            AddressOverflow,
            "0x3 bytes at PhysAddr(ram:0xfffe) leave the 16-bit space",
        ),
        (
            lambda ram: ram.fill(SPACE.at(LIMIT - 2), 3, 1),
            AddressOverflow,
            "0x3 bytes at PhysAddr(ram:0xfffe) leave the 16-bit space",
        ),
        (
            lambda ram: ram.read(PhysSpace("ram", width=16).at(0), 1),
            SpaceMismatch,
            "PhysAddr(ram:0x0) is not an address of PhysSpace('ram', width=16)",
        ),
        (
            lambda ram: ram.write(PhysSpace("other").at(0), b""),
            SpaceMismatch,
            "PhysAddr(other:0x0) is not an address of PhysSpace('ram', width=16)",
        ),
        (
            lambda ram: ram.read(SPACE.at(16), -1),
            InvalidArgument,
            "-1 bytes at PhysAddr(ram:0x10): a size is 0 or more",
        ),
        (lambda ram: ram.fill(SPACE.at(0), 1, 256), InvalidArgument, "256 is no byte: 0 to 255"),
    ],
)
def test_refusals_write_nothing(call, error, text):
    ram = SparseRam(SPACE)
    with pytest.raises(error) as info:
        call(ram)
    assert str(info.value) == text
    assert ram.resident_bytes == 0


def test_check_sees_a_page_of_another_length():
    ram = SparseRam(SPACE)
    ram.write(SPACE.at(0x2000), b"x")
    ram._pages[2].append(0)
    with pytest.raises(AssertionError, match=r"^page 0x2 has 4097 bytes"):
        ram.check()


def test_check_sees_a_page_outside():
    ram = SparseRam(SPACE)
    ram._pages[16] = bytearray(4096)
    with pytest.raises(AssertionError, match=r"^page 0x10 is outside PhysSpace\('ram', width=16\)"):
        ram.check()


@given(
    st.lists(operations, max_size=8), st.lists(st.tuples(st.integers(0, 15), st.integers(0, 511), st.integers(1, 255)))
)
def test_words_are_the_bytes_of_their_page(steps, stores):
    ram, twin = SparseRam(SPACE), SparseRam(SPACE)
    views = {}
    for verb, start, what in steps:
        if verb == "read":
            views.setdefault(start // 4096, ram.words(SPACE.at(start // 4096 * 4096)))
        for each in (ram, twin):
            if verb == "write":
                each.write(SPACE.at(start), what[: LIMIT - start])
            elif verb == "fill":
                each.fill(SPACE.at(start), min(what[0], LIMIT - start), what[1])
    for page, word, value in stores:
        views.setdefault(page, ram.words(SPACE.at(page * 4096)))[word] = value * 0x0101010101010101  # in any byte order
        twin.fill(SPACE.at(page * 4096 + word * 8), 8, value)
    ram.check()
    assert ram.read(SPACE.at(0), LIMIT) == twin.read(SPACE.at(0), LIMIT)
    for page, view in views.items():
        assert view is ram.words(SPACE.at(page * 4096))
        assert view.tobytes() == twin.read(SPACE.at(page * 4096), 4096)


def test_a_page_given_out_as_words_is_never_dropped():
    ram = SparseRam(SPACE)
    ram.fill(SPACE.at(0x1000), 0x2000, 7)
    view = ram.words(SPACE.at(0x1000))
    ram.fill(SPACE.at(0x1000), 0x2000, 0)
    assert ram.resident_bytes == 4096
    assert not any(view)
    view[511] = 1
    assert any(ram.read(SPACE.at(0x1FF8), 8))


def test_no_words_where_no_page_begins():
    with pytest.raises(InvalidArgument) as caught:
        SparseRam(SPACE).words(SPACE.at(0x1008))
    assert str(caught.value) == "no page begins at PhysAddr(ram:0x1008)"
    with pytest.raises(SpaceMismatch):
        SparseRam(SPACE).words(PhysSpace("ram", width=16).at(0x1000))
