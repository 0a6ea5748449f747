import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysRange, PhysSpace
from swiommu.errors import AddressInUse, InputError, SpaceMismatch
from swiommu.memory import SystemMap

SPACE = PhysSpace("ram", width=40)

X86 = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-7ffd4fff : System RAM
  01000000-01ffffff : Kernel code
  02000000-027fffff : Kernel data
    02000000-02000fff : a page of it
fec00000-fec003ff : IOAPIC 0
100000000-13fffffff : System RAM (kmem)
140000000-17fffffff : Persistent Memory
  140000000-15fffffff : dax0.0
    148000000-157ffffff : System RAM (kmem)"""


def parse(text, **options):
    return SystemMap.from_lines(SPACE, text.splitlines(), **options)


def extent(start, stop):
    return PhysRange(SPACE.at(start), stop - start)


class TestReading:
    def test_a_map_prints_as_it_was_read(self):
        system_map = parse(X86)
        system_map.check()
        assert str(system_map) == X86
        assert len(system_map) == 12

    @pytest.mark.parametrize(
        ("address", "names"),
        [
            (0xFFF, ["Reserved"]),
            (0x1000, ["System RAM"]),
            (0x9FBFF, ["System RAM"]),
            (0x9FC00, []),
            (0x0200_0FFF, ["System RAM", "Kernel data", "a page of it"]),
            (0x0200_1000, ["System RAM", "Kernel data"]),
            (0x1_5000_0000, ["Persistent Memory", "dax0.0", "System RAM (kmem)"]),
        ],
    )
    def test_what_lies_at_an_address_innermost_last(self, address, names):
        assert parse(X86).at(SPACE.at(address)) == names

    def test_ram_is_ram_whatever_lies_in_it(self):
        system_map = parse(X86)
        assert system_map.ram() == [
            extent(0x1000, 0x9FC00),
            extent(0x100000, 0x7FFD5000),
            extent(0x1_0000_0000, 0x1_4000_0000),
            extent(0x1_4800_0000, 0x1_5800_0000),
        ]
        assert system_map.top_of_ram() == 0x1_5800_0000
        answers = [
            system_map.is_ram(SPACE.at(address)) for address in (0, 0x1000, 0x100_0000, 0xFEC0_0000, 0x1_4000_0000)
        ]
        assert answers == [False, True, True, False, False]

    def test_neighbours_are_one_memory(self):
        system_map = parse("40000000-4fffffff : System RAM\n50000000-5fffffff : System RAM")
        assert system_map.ram() == [extent(0x4000_0000, 0x6000_0000)]

    def test_an_alias_is_no_more_memory(self):
        system_map = parse("80000000-8fffffff : System RAM\n800000000-80fffffff : System RAM (boot alias)")
        assert system_map.ram() == [extent(0x8000_0000, 0x9000_0000)]
        assert system_map.top_of_ram() == 0x9000_0000

    def test_blank_lines_tabs_and_crlf_do_not_matter(self):
        system_map = SystemMap.from_lines(SPACE, ["\n", "\t1000-1FFF : System RAM\r\n", "   \n"])
        assert str(system_map) == "00001000-00001fff : System RAM"

    def test_nothing_is_an_empty_map(self):
        system_map = parse("")
        assert (str(system_map), system_map.ram(), system_map.top_of_ram()) == ("", [], 0)
        assert system_map.at(SPACE.at(0)) == []

    def test_names_may_hold_the_separator(self):
        assert parse("0-fff : a : b-c").at(SPACE.at(0)) == ["a : b-c"]


class TestBadLines:
    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("0-fff : a\n\n1000-1fff", "x:3: expected 'first-last : name', found '1000-1fff'"),
            ("1000 : a", "x:1: expected 'first-last : name', found '1000 : a'"),
            ("1000-1fff : ", "x:1: expected 'first-last : name', found '1000-1fff :'"),
            ("1000-1fxf : a", "x:1: '1fxf' is no hexadecimal address"),
            ("-1000-1fff : a", "x:1: '' is no hexadecimal address"),
            ("0x1000-0x1fff : a", "x:1: '0x1000' is no hexadecimal address"),
            ("1_000-1fff : a", "x:1: '1_000' is no hexadecimal address"),
            ("2000-1fff : a", "x:1: the range 2000-1fff ends before it starts"),
            (
                "ffffffffff-10000000000 : a",
                "x:1: the range ffffffffff-10000000000 leaves the 40-bit space 'ram'",
            ),
            (
                "1000-2fff : a\n2000-3fff : b",
                "x:2: '00002000-00003fff : b' crosses the border of '00001000-00002fff : a'",
            ),
            (
                "1000-2fff : a\n  3000-3fff : b",
                "x:2: '00003000-00003fff : b' leaves '00001000-00002fff : a', under which it stands",
            ),
            (
                "0-0 : System RAM\n  0-0 : Kernel code",
                "x: every address is zero: only root can read the addresses of /proc/iomem",
            ),
        ],
    )
    def test_they_are_named_by_number_and_reason(self, text, error):
        with pytest.raises(InputError) as info:
            parse(text, path="x")
        assert str(info.value) == error

    def test_the_line_is_a_field(self):
        with pytest.raises(InputError) as info:
            parse("0-fff : a\nwhat")
        assert (info.value.line, info.value.path) == (2, None)

    def test_long_lines_are_not_echoed_whole(self):
        with pytest.raises(InputError) as info:
            parse("y" * 100_000)
        assert str(info.value) == f"expected 'first-last : name', found '{'y' * 60}'"


class TestAdding:
    def test_a_range_goes_around_those_it_covers(self):
        system_map = SystemMap(SPACE)
        system_map.add(extent(0x2000, 0x3000), "inner")
        system_map.add(extent(0x1000, 0x4000), "outer")
        system_map.add(extent(0x2000, 0x3000), "the same again")
        assert system_map.at(SPACE.at(0x2000)) == ["outer", "inner", "the same again"]
        assert str(system_map) == (
            "00001000-00003fff : outer\n  00002000-00002fff : inner\n    00002000-00002fff : the same again"
        )

    def test_crossing_ranges_are_refused_and_nothing_is_added(self):
        system_map = SystemMap(SPACE)
        system_map.add(extent(0x1000, 0x3000), "first")
        with pytest.raises(AddressInUse) as info:
            system_map.add(extent(0x2000, 0x4000), "second")
        assert str(info.value) == ("'00002000-00003fff : second' crosses the border of '00001000-00002fff : first'")
        assert (info.value.start, info.value.size) == (0x2000, 0x2000)
        assert len(system_map) == 1

    def test_addresses_of_another_space_are_refused(self):
        system_map = SystemMap(SPACE)
        other = PhysSpace("other").at(0x1000)
        for call in (
            lambda: system_map.add(PhysRange(other, 1), "x"),
            lambda: system_map.at(other),
            lambda: system_map.is_ram(other),
        ):
            with pytest.raises(SpaceMismatch) as info:
                call()
            assert str(info.value) == "PhysAddr(other:0x1000) is not an address of PhysSpace('ram', width=40)"

    def test_check_sees_ranges_that_cross(self):
        system_map = SystemMap(SPACE)
        system_map.add(extent(0x1000, 0x3000), "first")
        stray = SystemMap(SPACE)
        stray.add(extent(0x2000, 0x4000), "second")
        system_map._by_extent |= stray._by_extent
        with pytest.raises(
            AssertionError, match=r"^'00002000-00003fff : second' crosses '00001000-00002fff : first' in"
        ):
            system_map.check()


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 20), st.sampled_from(["System RAM", "Reserved", "device"])),
        max_size=12,
    )
)
def test_it_answers_as_a_list_of_ranges_does(wanted):
    system_map, twin = SystemMap(SPACE), []
    for start, size, name in wanted:
        stop = start + size
        crosses = any(start < low < stop < high or low < start < high < stop for low, high, _ in twin)
        if crosses:
            with pytest.raises(AddressInUse):
                system_map.add(extent(start, stop), name)
        else:
            system_map.add(extent(start, stop), name)
            twin.append((start, stop, name))
    system_map.check()
    is_ram = []
    for address in range(64):
        holding = [entry for entry in twin if entry[0] <= address < entry[1]]
        holding.sort(key=lambda entry: entry[0] - entry[1])  # the sort is stable: equals stay in order of adding
        assert system_map.at(SPACE.at(address)) == [name for _, _, name in holding]
        is_ram.append(any(name == "System RAM" for _, _, name in holding))
        assert system_map.is_ram(SPACE.at(address)) == is_ram[-1]
    assert [address for r in system_map.ram() for address in range(r.start.value, r.stop)] == [
        address for address, ram in enumerate(is_ram) if ram
    ]
    assert system_map.top_of_ram() == max((address + 1 for address, ram in enumerate(is_ram) if ram), default=0)
    again = SystemMap.from_lines(SPACE, str(system_map).splitlines()) if twin else system_map
    assert str(again) == str(system_map)


def test_those_who_only_want_frames_do_not_load_the_interval_tree():
    code = "import sys, swiommu.memory; print('intervaltree' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
