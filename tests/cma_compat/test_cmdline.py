"""The region list of 2010: every rule as a row, and lists from the grammar beside the same grammar as one regex."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cma_compat.cmdline import (
    ListedRegion,
    ListFullError,
    RegionListError,
    parse_regions,
    read_regions,
    rounded_extent,
    split_parameters,
)
from swiommu.errors import InvalidArgument, SwiommuError

GIB = 1 << 30


def refusal_of(text, **options):
    with pytest.raises(SwiommuError) as refusal:
        parse_regions(text, **options)
    return refusal.value


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("", []),
        ("\0a=b", []),
        ("a=4096", [ListedRegion("a", 4096, 0, 4096, None)]),
        ("a=4096;", [ListedRegion("a", 4096, 0, 4096, None)]),
        ("a=4096\0;;", [ListedRegion("a", 4096, 0, 4096, None)]),
        ("a=1;a=2", [ListedRegion("a", 4096, 0, 4096, None)] * 2),
        # Rounding: the alignment to a page, the start to it, the size to pages.
        ("a=5000@4097/1", [ListedRegion("a", 8192, 8192, 4096, None)]),
        ("a=5000@4097/8K", [ListedRegion("a", 8192, 8192, 8192, None)]),
        ("a=1/1G", [ListedRegion("a", 4096, 0, GIB, None)]),
        ("a=1@1G/2G", [ListedRegion("a", 4096, 2 * GIB, 2 * GIB, None)]),
        # A size or a start in the last page becomes 0, and so they are registered.
        ("a=0xffffffffffffffff", [ListedRegion("a", 0, 0, 4096, None)]),
        ("a=1@0xfffffffffffff001", [ListedRegion("a", 4096, 0, 4096, None)]),
        ("a=1@0xffffffffffffe000", [ListedRegion("a", 4096, 2**64 - 8192, 4096, None)]),
        # Names: all up to "=", which may be spaces and more.
        (" =1", [ListedRegion(" ", 4096, 0, 4096, None)]),
        ("a b=1", [ListedRegion("a b", 4096, 0, 4096, None)]),
        ("a@/:,=1", [ListedRegion("a@/:,", 4096, 0, 4096, None)]),
        ("a=1;b;c=1", [ListedRegion("a", 4096, 0, 4096, None), ListedRegion("b;c", 4096, 0, 4096, None)]),
        (";;a=1", [ListedRegion(";;a", 4096, 0, 4096, None)]),
        # Allocators: all up to ";"; nothing is the default one.
        ("a=1:", [ListedRegion("a", 4096, 0, 4096, None)]),
        ("a=1:;", [ListedRegion("a", 4096, 0, 4096, None)]),
        ("a=1:bf", [ListedRegion("a", 4096, 0, 4096, "bf")]),
        ("a=1: b(c)@/:=,", [ListedRegion("a", 4096, 0, 4096, " b(c)@/:=,")]),
        ("a=1:x;b=1@1/1:y", [ListedRegion("a", 4096, 0, 4096, "x"), ListedRegion("b", 4096, 4096, 4096, "y")]),
    ],
)
def test_list_has_regions(text, regions):
    assert parse_regions(text) == regions


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("1", 1),
        ("10", 10),
        ("010", 8),
        ("0010", 8),
        ("0x10", 16),
        ("0X10", 16),
        ("0xfF", 255),
        ("1k", 1 << 10),
        ("1K", 1 << 10),
        ("1m", 1 << 20),
        ("1M", 1 << 20),
        ("1g", 1 << 30),
        ("1G", 1 << 30),
        ("010M", 8 << 20),
        ("0x1G", 1 << 30),
        ("0xfg", 15 << 30),
        (str(2**64 - 1), 2**64 - 1),
        (str(2**64 + 5), 5),
        ("0x10000000000000005", 5),
        ("02000000000000000000005", 5),
        (str(2**54 + 3) + "K", 3 << 10),
        ("1" + "0" * 20_000 + "7", (10**20_001 + 7) % 2**64),
    ],
)
def test_numbers_are_read_as_the_kernel_read_them(number, value):
    assert list(read_regions(f"a={number}")) == [ListedRegion("a", value, 0, 0, None)]
    assert list(read_regions(f"a=1@{number}:b")) == [ListedRegion("a", 1, value, 0, "b")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (";", 'cma=, column 1: "=" is missing after the name of a region'),
        ("a", 'cma=, column 1: "=" is missing after the name of a region'),
        ("a=1;;", 'cma=, column 5: "=" is missing after the name of a region'),
        ("a=1; ", 'cma=, column 5: "=" is missing after the name of a region'),
        ("=1", "cma=, column 1: a region has no name"),
        ("a=1;=1", "cma=, column 5: a region has no name"),
        ("a=", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=;b=1", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=0", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=0x", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=0xg", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=08", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=K", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=0K", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=-1", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=+1", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a= 1", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=@1", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=\u0661", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=18446744073709551616", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=17179869184G", "cma=, column 3: the size of region 'a' is missing or 0"),
        ("a=1@", "cma=, column 5: the start of region 'a' is missing or 0"),
        ("a=1@0", "cma=, column 5: the start of region 'a' is missing or 0"),
        ("a=1@/1", "cma=, column 5: the start of region 'a' is missing or 0"),
        ("a=1/", "cma=, column 5: the alignment of region 'a' is missing or 0"),
        ("a=1@1/0", "cma=, column 7: the alignment of region 'a' is missing or 0"),
        ("a=1/3", "cma=, column 5: the alignment 3 of region 'a' is no power of two"),
        ("a=1/12K", "cma=, column 5: the alignment 12288 of region 'a' is no power of two"),
        ("a=1/1@1", "cma=, column 6: region 'a' goes on with '@1'"),
        ("a=1@1@1", "cma=, column 6: region 'a' goes on with '@1'"),
        ("a=1 ", "cma=, column 4: region 'a' goes on with ' '"),
        ("a=1\n", "cma=, column 4: region 'a' goes on with '\\n'"),
        ("a=1KB", "cma=, column 5: region 'a' goes on with 'B'"),
        ("a=1T", "cma=, column 4: region 'a' goes on with 'T'"),
        ("a=018", "cma=, column 5: region 'a' goes on with '8'"),
        ("a=1junk;b=1", "cma=, column 4: region 'a' goes on with 'junk'"),
    ],
)
def test_fault_is_refused_where_it_is(text, why):
    refusal = refusal_of(text)
    assert (type(refusal), refusal.errno, str(refusal)) == (RegionListError, 22, why)
    assert refusal.column == int(re.search(r"column (\d+)", why)[1])


@pytest.mark.parametrize(
    ("text", "width", "why"),
    [
        (
            "a=16K@0xffffffffffffe000",
            64,
            "region 'a': a region of 16384 bytes from 0xffffffffffffe000 on leaves the 64 bits of an address",
        ),
        (
            "a=8K@0xffffffffffffe000",
            64,
            "region 'a': a region of 8192 bytes from 0xffffffffffffe000 on leaves the 64 bits of an address",
        ),
        ("a=1M@4G", 32, "region 'a': a region of 1048576 bytes from 0x100000000 on leaves the 32 bits of an address"),
        ("a=4G", 32, "region 'a': a region of 4294967296 bytes from 0x0 on leaves the 32 bits of an address"),
        ("a=2G@2G", 32, "region 'a': a region of 2147483648 bytes from 0x80000000 on leaves the 32 bits of an address"),
    ],
)
def test_region_beyond_the_addresses_is_refused(text, width, why):
    refusal = refusal_of(f"b=1;{text};c=1", width=width)
    assert (type(refusal), refusal.errno, str(refusal)) == (RegionListError, 22, f"cma=, {why}")
    assert refusal.regions == (ListedRegion("b", 4096, 0, 4096, None),)


def test_wide_numbers_that_do_fit_narrow_addresses_are_kept():
    assert parse_regions("a=1M@2G", width=32) == [ListedRegion("a", 1 << 20, 2 * GIB, 4096, None)]
    assert parse_regions("a=1M@4G", width=33) == [ListedRegion("a", 1 << 20, 4 * GIB, 4096, None)]


def test_pages_of_another_size():
    assert parse_regions("a=1@1", page_size=16384) == [ListedRegion("a", 16384, 16384, 16384, None)]


@pytest.mark.parametrize("fault", ["=1", "b=", "b=-1", "b=1/3", "b=1x", "b=8K@0xffffffffffffe000"])
def test_regions_before_the_fault_are_kept_and_none_after_it(fault):
    kept = ListedRegion("a", 8192, 4096, 4096, "bf")
    assert refusal_of(f"{fault};c=1").regions == ()
    assert refusal_of(f"a=5000@1:bf;{fault};c=1").regions == (kept,)
    assert refusal_of(f"a=5000@1:bf;a=5000@1:bf;{fault};c=1").regions == (kept, kept)


@pytest.mark.parametrize("end", ["", ";", "\0;x=1"])
def test_fifteen_regions_are_read(end):
    assert len(parse_regions(";".join(["a=1"] * 15) + end)) == 15


@pytest.mark.parametrize("sixteenth", ["a=1", "=1", "rubbish", ";"])
def test_sixteenth_region_is_refused_before_it_is_read(sixteenth):
    refusal = refusal_of(";".join(["a=1"] * 15) + ";" + sixteenth)
    assert (type(refusal), refusal.errno) == (ListFullError, 28)
    assert str(refusal) == "cma=, column 61: a list may have 15 regions"
    assert len(refusal.regions) == 15


def test_fault_before_the_sixteenth_region_comes_first():
    assert refusal_of(";".join(["a=1"] * 14 + ["=1", "a=1"])).errno == 22


def test_regions_are_read_one_by_one():
    regions = read_regions("a=1;=2")
    assert next(regions) == ListedRegion("a", 1, 0, 0, None)
    with pytest.raises(InvalidArgument):
        next(regions)


@pytest.mark.parametrize("alignment", [-1, -4096, 3, 12288])
def test_extent_with_a_bad_alignment_is_refused(alignment):
    with pytest.raises(InvalidArgument) as refusal:
        rounded_extent(0, 4096, alignment, page_size=4096, width=64)
    assert str(refusal.value) == f"the alignment {alignment} is no power of two"


@pytest.mark.parametrize(("start", "size"), [(-1, 4096), (0, -1), (2**64, 1), (0, 2**64)])
def test_extent_that_is_no_address_is_refused(start, size):
    with pytest.raises(InvalidArgument) as refusal:
        rounded_extent(start, size, 0, page_size=4096, width=64)
    assert str(refusal.value) == f"a region of {size} bytes from {start:#x} on leaves the 64 bits of an address"


@pytest.mark.parametrize(
    ("line", "parameters"),
    [
        ("", []),
        (" \t\n", []),
        ("quiet", [("quiet", "")]),
        ("cma=", [("cma", "")]),
        ("cma=a=1;b=2", [("cma", "a=1;b=2")]),
        ("cma=a=1 cma=b=2  cma.map=*=a\n", [("cma", "a=1"), ("cma", "b=2"), ("cma.map", "*=a")]),
        ('cma="a b=1"', [("cma", "a b=1")]),
        ('"cma=a b=1"', [("cma", "a b=1")]),
        ('cma=a" "b=1', [("cma", 'a" "b=1')]),  # only quotes around the value go away
        ('cma=a="1"', [("cma", 'a="1"')]),
        ('cma="a=1', [("cma", "a=1")]),
        ('cma="a=1 quiet', [("cma", "a=1 quiet")]),
        ("cma=a=1 -- cma=b=2", [("cma", "a=1")]),
        ("--x cma=a=1--", [("--x", ""), ("cma", "a=1--")]),
        ("cma=a=1\0 cma=b=2", [("cma", "a=1")]),
        ("cma=a\u00a0b=1", [("cma", "a\u00a0b=1")]),
    ],
)
def test_command_line_has_parameters(line, parameters):
    assert list(split_parameters(line)) == parameters


def twin_parameters(line):
    """The kernel's own loop over characters."""
    place = 0
    while True:
        while line[place : place + 1].isspace():
            place += 1
        if place == len(line):
            return
        start = place
        in_quote = False
        while place < len(line) and (in_quote or not line[place].isspace()):
            in_quote ^= line[place] == '"'
            place += 1
        word = line[start:place]
        if word == "--":
            return
        if word[0] == '"':
            word = word[1:-1] if word[1:].endswith('"') else word[1:]
        name, _, value = word.partition("=")
        if value[:1] == '"':
            value = value[1:-1] if value[1:].endswith('"') else value[1:]
        yield name, value


@given(st.text('a= "-', max_size=14))
def test_twins_agree_on_parameters(line):
    assert list(split_parameters(line)) == list(twin_parameters(line))


# The grammar once more, as one regex.

NUMBER = r"((?:0[xX][0-9a-fA-F]+|[1-9][0-9]*|0[0-7]*)[kKmMgG]?)"
REGION = re.compile(rf"([^=]+)={NUMBER}(?:@{NUMBER})?(?:/{NUMBER})?(?::([^;]*))?(?:;|$)(?!\n)")


def twin_number(text):
    if text is None:
        return 0
    digits = text.rstrip("kKmMgG")
    scale = 1024 ** " kmg".index(text[len(digits) :].lower() or " ")
    base = 16 if digits[:2] in {"0x", "0X"} else 8 if digits[0] == "0" else 10
    return int(digits, base) * scale % 2**64


def round_up(value, step):
    return (value + step - 1) // step * step % 2**64


def twin_parse(text):
    """Result and regions."""
    text = text.split("\0")[0]
    regions = []
    while text:
        if len(regions) == 15:
            return -28, regions
        found = REGION.match(text)
        if not found:
            return -22, regions
        name, *numbers, alloc_name = found.groups()
        size, start, alignment = (twin_number(number) for number in numbers)
        given = [each for number, each in zip(numbers, (size, start, alignment), strict=True) if number is not None]
        if 0 in given or alignment.bit_count() > 1:
            return -22, regions
        alignment = max(alignment, 4096)
        size, start = round_up(size, 4096), round_up(start, alignment)
        if start + size >= 2**64:
            return -22, regions
        regions.append((name, size, start, alignment, alloc_name or None))
        text = text[found.end() :]
    return 0, regions


sizes = st.sampled_from(["1", "5000", "64K", "1m", "0x2000", "010", "3G", "0xFfg", "18446744073709551615"])
odd = st.sampled_from(["", "0", "0x", "08", "-1", " 1", "K", "18446744073709551616", "1kk", "12K"])
numbers = st.one_of(*[sizes] * 9, odd)
powers = st.one_of(*[st.sampled_from(["1", "16", "0x1000", "64k", "1M", "0x8000000000000000"])] * 9, odd)
named = st.one_of(*[st.sampled_from(["a", "b c", "d;e", "video"])] * 9, st.sampled_from(["", ";", "a;"]))
listed = st.builds(
    lambda name, size, start, alignment, alloc_name: f"{name}={size}{start}{alignment}{alloc_name}",
    named,
    numbers,
    st.just("") | numbers.map("@{}".format),
    st.just("") | powers.map("/{}".format),
    st.sampled_from(["", "", ":", ":bf", ":a,b=c@1"]),
)
lists = st.builds(
    lambda regions, end: ";".join(regions) + end,
    st.lists(listed, max_size=6) | st.lists(st.sampled_from(["a=1", "b=2M/64K:bf"]), min_size=13, max_size=17),
    st.sampled_from(["", "", ";", ";;", "x", "\0x", "\n"]),
)


def parsed(text):
    try:
        return 0, [tuple(region) for region in parse_regions(text)]
    except SwiommuError as refusal:
        return -refusal.errno, [tuple(region) for region in refusal.regions]


@given(lists)
def test_twins_agree_on_lists(text):
    assert parsed(text) == twin_parse(text)


@given(st.text("a=01xK@/:;\0\n", max_size=12))
def test_twins_agree_on_scraps(text):
    assert parsed(text) == twin_parse(text)
