"""A dump of memory against a dict of bytes: pieces touch, overlap or leave holes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import InvalidArgument
from swiommu.pagetable.dump import MemoryDump


@st.composite
def pieces(draw):
    """At least four, so that a third extent is common, each behind the last or a few bytes on."""
    at, found = draw(st.sampled_from([0, 8, 0x1000])), {}
    for size, gap in draw(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, 0, 1, 5])), min_size=4, max_size=9)
    ):
        found[at] = bytes(draw(st.integers(1, 255)) for _ in range(size))
        at += size + gap + (not size)
    order = draw(st.permutations(list(found)))
    return {start: found[start] for start in order}


@given(pieces(), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 40)), max_size=6))
def test_a_dump_is_a_dict_of_bytes(pieces, reads):
    held = {start + n: byte for start, piece in pieces.items() for n, byte in enumerate(piece)}
    dump = MemoryDump(pieces)
    assert all(stop < start for (_, stop), (start, _) in zip(dump.extents, dump.extents[1:], strict=False))
    assert [at for start, stop in dump.extents for at in range(start, stop)] == sorted(held)
    base = min(pieces)
    for offset, size in [*reads, (0, 64), (0, 8)]:
        at, wanted = base + offset, bytearray()
        while len(wanted) < size and at + len(wanted) in held:
            wanted.append(held[at + len(wanted)])
        assert dump.read(at, size) == bytes(wanted)
        word = dump.word(at)
        assert (word is not None) is all(at + n in held for n in range(8))
        assert word is None or word.to_bytes(8, "little") == dump.read(at, 8)
        words = dump.words(at, 2)
        assert (words and list(words)) == (None if len(dump.read(at, 16)) < 16 else [word, dump.word(at + 8)])


def test_what_touches_is_one_extent():
    dump = MemoryDump({0: bytes(8), 0x1000: bytes(8), 0x1008: bytes(8)})
    assert dump.extents == [(0, 8), (0x1000, 0x1010)]


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ({0: bytes(8), 0x10: bytes(8), 0x17: bytes(8)}, "two pieces of the dump hold 0x17"),
        ({0: bytes(8), 7: bytes(1)}, "two pieces of the dump hold 0x7"),
        ({-1: bytes(2)}, "0x2 bytes at -0x1 leave the addresses from 0 to 2**64 - 1"),
        ({(1 << 64) - 1: bytes(2)}, "0x2 bytes at 0xffffffffffffffff leave the addresses from 0 to 2**64 - 1"),
    ],
)
def test_pieces_that_can_not_be(pieces, sentence):
    with pytest.raises(InvalidArgument) as caught:
        MemoryDump(pieces)
    assert str(caught.value) == sentence


def test_the_last_bytes_that_there_are():
    assert MemoryDump({(1 << 64) - 2: b"ab"}).extents == [((1 << 64) - 2, 1 << 64)]
