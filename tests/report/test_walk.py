"""Walks as people see them: whole texts, and pictures that are well-formed whatever a name holds."""

import xml.etree.ElementTree as ET

import pytest

from swiommu.address import Access, PhysSpace, Prot
from swiommu.answers.explain import explain
from swiommu.layer import Chain, Memory, Node, Paged, Span, Walker, Window, connect, flatten
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.pagetable.formats import FORMATS
from swiommu.report.walk import blame, headline, outcome, references, walk_text
from swiommu.report.walk_svg import walk_svg
from swiommu.stackfile import bundled_stacks, read_stack

READ, WRITE, EXEC = Access.READ, Access.WRITE, Access.EXEC
SVG = "{http://www.w3.org/2000/svg}"


KEPT = "a cache could keep it as a block of 4 KiB"
WRITE_REFUSED = "a write refused by guest (permission)"
REFUSED = "guest is to blame (permission fault): it does not allow reading and writing at iova 0x14000"


def nested(address, wanted=READ, size=8, top="camera"):
    return explain(read_stack("nested")[top], address, size, wanted)


def test_a_walk_that_ends_in_a_walk():
    assert walk_text(nested(0x4000_0000, top="guest")) == (
        """\
guest reads 8 bytes at iova 0x40000000

guest      paged   mock, 48 to 52 bits, 13 leaves
└─ host    paged   mock, 48 to 52 bits, 260 leaves
   └─ ram  memory  [0x80000000, 0xc0000000)

   refs  the way
         guest  iova 0x40000000 -> nowhere
           host  ipa 0x40000000 -> pa 0x90000000
      1      at pa 0x80000000: next table at pa 0x80001000
      2      at pa 0x80001008: next table at pa 0x80002000
      3      at pa 0x80002000: next table at pa 0x80003000
      4      at pa 0x80003000: page of 4 KiB, rw
      5    at ipa 0x40000000 (pa 0x90000000): next table at ipa 0x40001000
           host  ipa 0x40001008 -> pa 0x90001008
      6      at pa 0x80000000: next table at pa 0x80001000
      7      at pa 0x80001008: next table at pa 0x80002000
      8      at pa 0x80002000: next table at pa 0x80003000
      9      at pa 0x80003008: page of 4 KiB, rw
     10    at ipa 0x40001008 (pa 0x90001008): next table at ipa 0x40004000
           host  ipa 0x40004000 -> nowhere
     11      at pa 0x80000000: next table at pa 0x80001000
     12      at pa 0x80001008: next table at pa 0x80002000
     13      at pa 0x80002000: next table at pa 0x80003000
     14      at pa 0x80003020: empty
  FAULT      translation fault of host

host is to blame (translation fault): nothing is mapped at ipa 0x40004000, where
an entry of guest was to be read.
14 refs: 2 to tables of guest, 12 to tables of host (all for entries of guest).
Whatever was wanted of the first byte, host would be to blame (translation)."""
    )


# Every leaf of every format: (format, depth of the level, order).
LEAVES = [
    pytest.param(form, depth, order, id=f"{form.name}-{level.shift}+{order}")
    for form in FORMATS.values()
    for depth, level in enumerate(form.levels)
    for order in level.sizes
]


@pytest.mark.parametrize(("form", "depth", "order"), LEAVES)
def test_every_leaf_of_every_format_is_told_as_the_format_has_it(form, depth, order):
    """Text, document and picture say what the format says: so many tables, then a page of that size."""
    size = 1 << form.levels[depth].shift + order
    table = RadixTable(form, CountingTables())
    at = min(size, (1 << form.aperture_width) - size)
    table.map_run(at, 0, size, 1, Prot.READ | Prot.WRITE)
    answer = explain(Node(Paged("iommu", table), walker=Walker.PHYSICAL), at + 0x10, 1, READ)
    tables = [step.table for step in table.walk(at).steps]
    assert len(tables) == depth - table.root_depth + 1
    unit = max(power for power in range(5) if size >> 10 * power)
    wanted = [f"next table at pa {phys:#x}" for phys in tables[1:]]
    wanted.append(f"page of {size >> 10 * unit} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}, rw")
    [[visit]] = answer.to_json()["walk"]
    assert [entry["meaning"] for entry in visit["entries"]] == wanted
    assert [line.partition(": ")[2] for line in walk_text(answer).splitlines() if ": " in line][: len(wanted)] == wanted
    titles = [each.text for each in ET.fromstring(walk_svg(answer)).iter(f"{SVG}title")][1:]
    assert titles == [
        f"entry at {entry['address']}: {entry['value']}, {meaning}"
        for entry, meaning in zip(visit["entries"], wanted, strict=True)
    ]
    assert answer.answer.runs[0].page_size == size


def test_a_fault_that_a_shadow_hands_on_is_told_in_the_words_of_its_source():
    upper = Paged("guest", RadixTable(MOCK, CountingTables()))
    upper.table.map_run(0, 0x8000, 0x1000, 1, Prot.READ)
    lower = Window("host", Span(0x8000, 0x1000, 0x30_0000))
    shadow = flatten(Chain(Node(upper, walker=Walker.PHYSICAL), lower), name="shadow")
    upper.table.map_run(0x1000, 0x9000, 0x1000, 1, Prot.READ)
    answer = explain(shadow, 0x1010, 1, READ)
    assert [line for line in walk_text(answer).splitlines() if "FAULT" in line] == ["  FAULT    range fault of host"]
    assert outcome(answer) == "host is to blame (range fault): it takes no such address as ipa 0x9010."


def test_inner_walks_can_be_left_out():
    text = walk_text(nested(0x4000_0000, top="guest"), depth=0).split("\n\n")[2]
    assert text == (
        """\
   refs  the way
         guest  iova 0x40000000 -> nowhere
    1-5    at ipa 0x40000000 (pa 0x90000000): next table at ipa 0x40001000
   6-10    at ipa 0x40001008 (pa 0x90001008): next table at ipa 0x40004000
  FAULT    at ipa 0x40004000: a layer below goes no further"""
    )


def test_long_walks_leave_out_inner_ones_by_themselves():
    answer = explain(read_stack("three")["nic"], 0x1000, 1, READ)
    assert answer.answer.refs == 124
    assert len(walk_text(answer).splitlines()) < 110
    assert len(walk_text(answer, depth=9).splitlines()) > 150


@pytest.mark.parametrize(
    ("address", "wanted", "size", "sentences"),
    [
        (
            0x10010,
            READ,
            1,
            [
                "camera reads 1 byte at iova 0x10010",
                f"It is reached: iova 0x10010 leads to pa 0x80800010 in ram; {KEPT}.",
                "24 refs: 4 to tables of guest, 20 to tables of host (16 for entries of guest).",
                "A read, a write and an execution of the first byte would all be allowed.",
            ],
        ),
        (
            0x13FF8,
            READ | WRITE,
            32,
            [
                "camera reads and writes 32 bytes at iova 0x13ff8",
                f"8 of 32 bytes are reached: iova 0x13ff8 leads to pa 0x80803ff8 in ram; {KEPT}. Then: {REFUSED}.",
                "44 refs: 8 to tables of guest, 36 to tables of host (32 for entries of guest).",
                "A read, a write and an execution of the first byte would all be allowed.",
            ],
        ),
        (
            0x14000,
            WRITE,
            8,
            [
                "camera writes 8 bytes at iova 0x14000",
                "guest is to blame (permission fault): it does not allow writing at iova 0x14000.",
                "20 refs: 4 to tables of guest, 16 to tables of host (all for entries of guest).",
                f"Of the first byte, a read would be allowed, {WRITE_REFUSED}, an execution allowed.",
            ],
        ),
        (
            0x1_0000_0000,
            EXEC,
            8,
            [
                "camera executes 8 bytes at iova 0x100000000",
                "camera is to blame (range fault): it takes no such address as iova 0x100000000.",
                "No refs: no table was read.",
                "Whatever was wanted of the first byte, camera would be to blame (range).",
            ],
        ),
    ],
)
def test_sentences(address, wanted, size, sentences):
    answer = nested(address, wanted, size)
    assert [headline(answer), outcome(answer), references(answer), blame(answer)] == sentences


def test_accessed_bits_want_writable_tables_below():
    lower = Paged("host", RadixTable(MOCK, CountingTables()))
    lower.table.map_run(0, 0x8000_0000, 0x1000, 16, Prot.READ)
    upper = Paged("guest", RadixTable(MOCK, CountingTables()), hardware_ad=True)
    top, below = Node(upper), Node(lower, walker=Walker.PHYSICAL)
    connect(top, below)
    assert outcome(explain(top, 0, 1, READ)) == (
        "host is to blame (permission fault): it does not allow reading and writing at ipa 0x1000, "
        "where an entry of guest was to be read and written (accessed and dirty bits)."
    )


def test_open_ends_and_widths():
    window = Node(Window("bus", Span(0, 0x1000, 0x4000)))
    answer = explain(window, 0x10, 4, READ, stack="by hand")
    assert headline(answer) == "bus reads 4 bytes at iova 0x10 in stack by hand"
    assert outcome(answer) == "All 4 bytes are reached: iova 0x10 leads to 0x4010, where the stack ends."
    table = RadixTable(MOCK, CountingTables())
    table.map_run(0, 1 << 50, 0x1000, 1, Prot.READ)
    narrow = Paged("narrow", table)
    narrow.output_width = 40
    assert outcome(explain(Node(narrow), 0x10, 4, READ)) == (
        "narrow is to blame (address-size fault): iova 0x10 leads to more bits than it puts out."
    )


def test_many_runs_are_counted():
    spans = [Span(at << 12, 0x1000, (20 - 2 * at) << 12) for at in range(8)]
    answer = explain(Node(Window("bus", *spans)), 0, 0x8000, READ)
    assert outcome(answer) == (
        "All 32768 bytes are reached: iova 0x0 (4096 bytes) leads to 0x14000, where the stack ends; "
        "iova 0x1000 (4096 bytes) leads to 0x13000, where the stack ends; "
        "iova 0x2000 (4096 bytes) leads to 0x12000, where the stack ends; "
        "iova 0x3000 (4096 bytes) leads to 0x11000, where the stack ends; and 4 runs more."
    )
    assert "         ... and 4 more ways, page by page" in walk_text(answer).splitlines()


@pytest.mark.parametrize("name", bundled_stacks())
def test_what_is_shown_of_bundled_stacks_fits_a_terminal(name):
    stack = read_stack(name)
    for top in stack.tops():
        for address in (0x1000, 0x10010, 0x1000_0000, 0x6000_0000):
            assert [line for line in walk_text(explain(top, address, 4, READ)).splitlines() if len(line) > 80] == []


# -- the picture


def numbers(picture):
    return [text.text for text in ET.fromstring(picture).iter(f"{SVG}text") if text.get("class") == "number"]


@pytest.mark.parametrize(("name", "top", "refs"), [("nested", "camera", 24), ("three", "nic", 124), ("gart", "gpu", 0)])
def test_every_reference_is_drawn_in_order(name, top, refs):
    picture = walk_svg(explain(read_stack(name)[top], 0x1000 if name != "nested" else 0x10000, 1, READ))
    assert numbers(picture) == [str(number) for number in range(1, refs + 1)]


def test_a_fault_is_drawn_where_it_happened():
    assert numbers(walk_svg(nested(0x4000_0000))) == [*map(str, range(1, 15)), "fault"]
    assert "range fault" in walk_svg(nested(1 << 32))


HOSTILE = '<script>alert("1")</script>&\x1b[31m\0\n\u202e]]>'


def test_names_are_escaped():
    ram = Node(Memory(HOSTILE, SparseRam(PhysSpace("ram"))))
    table = RadixTable(MOCK, CountingTables())
    table.map_run(0, 0, 0x1000, 16, Prot.READ)
    top = Node(Paged(HOSTILE + "2", table), walker=Walker.PHYSICAL)
    connect(top, ram)
    for wanted in (READ, WRITE):
        answer = explain(top, 0x1000, 8, wanted, stack=HOSTILE)
        picture = walk_svg(answer)
        kinds = {element.tag.removeprefix(SVG) for element in ET.fromstring(picture).iter()}
        assert kinds <= {"svg", "title", "style", "rect", "g", "text", "path"}
        for text in (picture, walk_text(answer)):
            assert all(char.isprintable() or char == "\n" for char in text)


def test_what_is_drawn_stays_inside():
    """Rectangles lie in the page and texts begin there, also for a stack of long names and many layers."""
    stack = None
    for number in range(5):
        node = Node(Paged(f"{number}{'w' * 60}", RadixTable(MOCK, CountingTables())))
        node.layer.table.map_run(0, 0, 0x1000, 16, Prot.READ)
        if stack is not None:
            connect(node, stack)
        stack = node
    page = ET.fromstring(walk_svg(explain(stack, 0x1000, 1, READ)))
    width, height = int(page.get("width")), int(page.get("height"))
    for element in [*page.iter(f"{SVG}rect"), *page.iter(f"{SVG}text")]:
        right = int(element.get("x", 0)) + int(element.get("width", 0))
        assert right <= width
        assert int(element.get("y", 0)) + int(element.get("height", 0)) <= height
    assert any("Drawn are 200 of" in (text.text or "") for text in page.iter(f"{SVG}text"))
