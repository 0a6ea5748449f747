"""The map attribute: every quirk as a row, and maps from a grammar beside the same rules written as regexes."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cma_compat.device_map import lookup, region_names, validate
from swiommu.errors import InvalidArgument, NotFound


def found(text, device, kind=None, **options):
    """The answer; None where no rule fits."""
    try:
        return lookup(text, device, kind, **options)
    except NotFound:
        return None


# What is a map.


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", 0),
        ("\n", 0),
        ("\nnot a map", 0),
        ("\0not a map", 0),
        ("a=b", 3),
        ("a=b;", 3),
        ("a=b;\n", 3),
        ("a=b\n;;", 3),
        ("a=b\0;;\n", 3),
        ("a=b\n\0", 3),
        ("a=", 2),  # a rule may yield nothing
        ("a=;", 2),
        ("a=;b=", 5),
        ("a==", 3),
        ("a=b=c;d=e", 9),
        ("a=b/c?*,", 8),
        (",=a", 3),
        ("/=a", 3),
        (" =a", 3),  # no space is skipped
        ("*x*y/z/=a", 9),
        ("\u00e9t\u00e9=a", 5),  # characters, not bytes
    ],
)
def test_valid_map_has_a_length(text, length):
    assert validate(text) == length


NO_EQUALS, NOTHING = 'has no "="', 'has nothing before its "="'


@pytest.mark.parametrize(
    ("text", "column", "rule", "fault"),
    [
        ("a", 1, "a", NO_EQUALS),
        (";", 1, "", NO_EQUALS),
        (";\n", 1, "", NO_EQUALS),
        (";a=b", 1, "", NO_EQUALS),
        ("a;b=c", 1, "a", NO_EQUALS),
        ("a\n=b", 1, "a", NO_EQUALS),
        ("a\0=b", 1, "a", NO_EQUALS),
        ("a=b;;", 5, "", NO_EQUALS),
        ("a=b;;c=d", 5, "", NO_EQUALS),
        ("a=b;c", 5, "c", NO_EQUALS),
        ("a=b; ;", 5, " ", NO_EQUALS),
        ("=", 1, "=", NOTHING),
        ("=a", 1, "=a", NOTHING),
        ("==", 1, "==", NOTHING),
        ("a=b;=c;d", 5, "=c", NOTHING),
    ],
)
def test_invalid_map_is_refused_where_it_is_wrong(text, column, rule, fault):
    for call in (validate, lambda text: lookup(text, "a"), lambda text: lookup(text, "")):
        with pytest.raises(InvalidArgument) as refusal:
            call(text)
        assert str(refusal.value) == f"the rule {rule!r} at column {column} of the map {fault}"
        assert (refusal.value.errno, refusal.value.rule, refusal.value.column) == (22, rule, column)


# What fits.


@pytest.mark.parametrize(
    ("text", "device", "kind", "regions"),
    [
        # The table of the specification.
        ("cam,vid=p;*=q", "vid", None, "p"),
        ("cam,vid=p;*=q", "jpeg", "a", "q"),
        ("d/a=a,b;/b=b,a;*=z", "d", "b", "b,a"),
        ("d/a=a,b;/b=b,a;*=z", "d", None, "z"),
        ("d/common=m", "d", None, "m"),
        ("n?/a,n?/b=r", "n7", "b", "r"),
        ("n?/a=r", "n", "a", None),
        # The first rule that fits, the first "=", up to ";".
        ("d=one;d=two", "d", None, "one"),
        ("d=a=b;x=y", "d", None, "a=b"),
        ("d=", "d", None, ""),
        ("d=;d=late", "d", None, ""),
        ("x=y;d=a/b?*,;z=z", "d", None, "a/b?*,"),
        # Devices.
        ("d=r", "D", None, None),
        ("d=r", "dd", None, None),
        ("dd=r", "d", None, None),
        ("???=r", "dev", None, "r"),
        ("??=r", "dev", None, None),
        ("*=r", "?", None, "r"),
        ("d*=r", "d", None, "r"),
        ("d*=r", "e", None, None),
        ("?*=r", "d", None, "r"),
        ("??*=r", "d", None, None),
        ("d?*/t=r", "dev", "t", "r"),
        ("d=r", "?", None, None),  # a "?" of the device is only itself
        ("?=r", "*", None, "r"),
        ("d =r", "d", None, None),
        ("d =r", "d ", None, "r"),
        # The slash takes part as any character does.
        ("a/b=r", "a/b", None, "r"),
        ("a/b=r", "a/b", "c", "r"),
        ("a/b=r", "a", "b", "r"),
        ("a/b/c=r", "a/b", "c", "r"),
        ("a/b/c=r", "a", "b/c", "r"),
        ("a?b=r", "a/b", None, "r"),
        # "*" is the last character of a device; what follows it must be a type.
        ("d*x=r", "dx", None, None),
        ("d*x=r", "d", None, None),
        ("d**=r", "d", None, None),
        ("d*x/t=r", "dx", "t", None),
        ("c*0,/t=r", "cam0", "t", "r"),  # a miss that leaves its mark all the same
        # Types are compared whole, "common" as well; only that one is meant by none.
        ("d/common=r", "d", "common", "r"),
        ("d/common=r", "d", "com", None),
        ("d/com=r", "d", "common", None),
        ("d/common=r", "d", "", None),
        ("d=r", "d", "", "r"),
        ("d=r", "d", "any", "r"),
        ("d/=r", "d", "", "r"),
        ("d/=r", "d", None, None),
        ("d/T=r", "d", "t", None),
        ("d/t =r", "d", "t", None),
        # No wildcards in types.
        ("d/*=r", "d", "t", None),
        ("d/*=r", "d", "*", "r"),
        ("d/t*=r", "d", "tx", None),
        ("d/?=r", "d", "t", None),
        ("d/?=r", "d", "?", "r"),
        # A pattern that is only a type speaks of the last device.
        ("/t=r", "d", "t", None),
        ("d/a,/t=r", "d", "t", "r"),
        ("e/a,/t=r", "d", "t", None),
        ("d/a=x;/t=r", "d", "t", "r"),
        ("d/a=x;e=y;/t=r", "d", "t", None),
        ("d/a=x;/b=y;/c=z;/t=r", "d", "t", "r"),
        ("d/a,/=r", "d", "", "r"),
        ("dev/a,/t=r", "d", "t", "r"),  # a proper prefix of a pattern
        ("d?v/a,/t=r", "de", "t", "r"),
        ("dev,/t=r", "devil", "t", None),
        ("d/t,,/t=r", "d", "u", None),
        ("d/a,,/t=r", "d", "t", None),  # the empty pattern is a miss too
        ("d/a,/b/c=r", "d", "b/c", "r"),
        ("d/a,//=r", "d", "/", "r"),
        # The ends.
        ("d=r;", "d", None, "r"),
        ("d=r\n", "d", None, "r"),
        ("d=r;\nd=x", "d", None, "r"),
        ("x=y\nd=r", "d", None, None),
        ("d=r\0s", "d", None, "r"),
    ],
)
def test_first_pattern_that_fits_answers(text, device, kind, regions):
    assert found(text, device, kind) == regions


@pytest.mark.parametrize("text", [None, "", "\n", "\0d=r"])
@pytest.mark.parametrize("device", ["d", "", None])
def test_without_a_map_nothing_is_found_whatever_the_device(text, device):
    with pytest.raises(NotFound) as refusal:
        lookup(text, device)
    assert (str(refusal.value), refusal.value.errno) == ("no map is set", 2)


@pytest.mark.parametrize("device", ["", None])
def test_device_without_a_name_is_refused(device):
    with pytest.raises(InvalidArgument) as refusal:
        lookup("*=r", device, "t")
    assert (str(refusal.value), refusal.value.errno) == ("a device without a name can't be looked up in the map", 22)


def test_no_fit_says_the_type_that_was_looked_up():
    with pytest.raises(NotFound) as refusal:
        lookup("e=r", "d")
    assert (str(refusal.value), refusal.value.errno) == ("no rule of the map fits device 'd' and type 'common'", 2)


@pytest.mark.parametrize(
    ("text", "kind", "regions"),
    [
        ("d/*=r", None, "r"),
        ("d/*=r", "", "r"),
        ("d/f*=r", "firmware", "r"),
        ("d/f*=r", "f", "r"),
        ("d/f*=r", "", None),
        ("d/?=r", "t", "r"),
        ("d/??=r", "t", None),
        ("d/*x=r", "x", None),
        ("d/x,/*=r", "t", "r"),
        ("d/t=r", "t", "r"),
        ("d/t=r", "tt", None),
        ("d/tt=r", "t", None),
        ("d=r", "t", "r"),
    ],
)
def test_types_have_wildcards_on_request(text, kind, regions):
    assert found(text, "d", kind, type_wildcards=True) == regions


# The list a rule yields.


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        (",", [""]),
        (",,", ["", ""]),
        ("a", ["a"]),
        ("a,", ["a"]),
        ("a,b", ["a", "b"]),
        (",a", ["", "a"]),
        ("a,,b", ["a", "", "b"]),
        ("a,b;c", ["a", "b"]),
        ("a,;b", ["a"]),
        (";a", []),
        ("a\0,b", ["a"]),
        ("a;\0", ["a"]),
        (" a, b ", [" a", " b "]),
        ("a\n,b", ["a\n", "b"]),  # a newline ends a map, not a list
        ("a=b,a", ["a=b", "a"]),
    ],
)
def test_region_list_has_names(text, names):
    assert region_names(text) == names


# The same rules, written once more.


def twin_validate(text):
    accepted = re.match(r"[^\n\0]*", text)[0]
    rule = "[^;=]+=[^;]*"
    return len(accepted.removesuffix(";")) if re.fullmatch(f"({rule}(;{rule})*;?)?", accepted) else None


def twin_head(head):
    return re.compile("".join("." if each == "?" else re.escape(each) for each in head), re.DOTALL)


def twin_rest(pattern, device):
    """What is left of a pattern for the type; None for a miss."""
    head, star, after = pattern.partition("*")
    if star and len(head) <= len(device):
        return after if twin_head(head).fullmatch(device[: len(head)]) else None
    if len(head) < len(device) or not twin_head(head[: len(device)]).fullmatch(device):
        return None
    return pattern[len(device) :]


def twin_lookup(text, device, kind):
    accepted = text[: twin_validate(text)]
    rules = [(left.split(","), right) for left, _, right in (each.partition("=") for each in accepted.split(";"))]
    patterns = [(pattern, right) for left, right in rules for pattern in left]
    kind = "common" if kind is None else kind
    for place, (pattern, right) in enumerate(patterns):
        speaks_of = [each for each, _ in patterns[: place + 1] if not each.startswith("/")][-1:]
        if not speaks_of or twin_rest(speaks_of[0], device) is None:
            continue
        rest = pattern if pattern.startswith("/") else twin_rest(pattern, device)
        if re.fullmatch(f"(/{re.escape(kind)})?", rest):
            return right
    return None


def twin_names(text):
    names, name = [], None
    for character in text:
        if character in "\0;":
            break
        if character == ",":
            names.append(name or "")
            name = None
        else:
            name = (name or "") + character
    return names if name is None else [*names, name]


# Few letters, so that devices, patterns and types meet.
devices = st.text("ab/", min_size=1, max_size=3) | st.text("ab?*", min_size=1, max_size=3)
kinds = st.sampled_from([None, "common", "", "a", "b", "ab", "*", "?", "a/b"])
device_patterns = st.builds(
    lambda head, star, more: head + star + more,
    st.text("ab?", max_size=3),
    st.sampled_from(["", "", "*"]),
    st.sampled_from(["", "", "", "a"]),
)
type_patterns = kinds.map(lambda kind: "" if kind is None else f"/{kind}")
patterns = st.tuples(device_patterns, type_patterns).map("".join)
rules = st.builds(
    lambda left, right: f"{','.join(left) or 'a'}={','.join(right)}",
    st.lists(patterns, min_size=1, max_size=4),
    st.lists(st.sampled_from(["", "r", "s", "t=u"]), max_size=3),
).filter(lambda rule: rule[0] != "=")
maps = st.builds(
    lambda rules, end: ";".join(rules) + end,
    st.lists(rules, min_size=1, max_size=5),
    st.sampled_from(["", ";", "\n", ";\nx", "\0;;"]),
)
scraps = st.text("a*?/,;=\n\0", max_size=12)


damaged = st.builds(lambda text, at, scrap: text[:at] + scrap + text[at:], maps, st.integers(0, 20), scraps)


@given(maps | scraps | damaged)
def test_twins_agree_on_what_a_map_is(text):
    try:
        length = validate(text)
    except InvalidArgument:
        length = None
    assert length == twin_validate(text)


def check_lookup(text, device, kind):
    assert found(text, device, kind) == twin_lookup(text, device, kind)
    # What is stored is the accepted part: it answers as the whole text does.
    assert found(text[: validate(text)], device, kind) == twin_lookup(text, device, kind)


@given(maps, devices, kinds)
@example("ab/a,/b=r", "a", "b")
@example("a*b,/b=r", "aa", "b")
def test_twins_agree_on_lookups(text, device, kind):
    check_lookup(text, device, kind)


@given(scraps.filter(twin_validate), devices, kinds)
def test_twins_agree_on_lookups_in_scraps(text, device, kind):
    check_lookup(text, device, kind)


@given(st.text("ab,;\0\n", max_size=10))
def test_twins_agree_on_region_lists(text):
    assert region_names(text) == twin_names(text)


@given(maps, devices, st.sampled_from(["a", "ab", "", None]))
def test_types_without_wildcards_answer_the_same_with_the_extra(text, device, kind):
    plain = re.sub(r"(?<=/)[^,=;\n\0]*", lambda name: re.sub("[*?]", "x", name[0]), text)
    assert found(plain, device, kind, type_wildcards=True) == found(plain, device, kind)


@pytest.mark.slow
@settings(max_examples=1500)
@given(maps | scraps.filter(twin_validate), devices, kinds)
def test_twins_agree_on_many_lookups(text, device, kind):
    check_lookup(text, device, kind)


def test_long_maps_are_read_in_little_time():
    text = ";".join(f"device{number}/a,/b=region{number}" for number in range(20_000))
    assert validate(text) == len(text)
    assert lookup(text, "device19999", "b") == "region19999"
    assert region_names(",".join(["r"] * 100_000)) == ["r"] * 100_000
