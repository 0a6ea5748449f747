"""Stack files: what they describe, and every mistake as one sentence that names the file and the key."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access
from swiommu.errors import InputError
from swiommu.layer import FaultClass, Walker, access, picture
from swiommu.stackfile import bundled_stacks, read_stack

RAM = '[memory.ram]\nbase = 0x8000_0000\nsize = "1 GiB"\n'


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_and_read(text):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "s.toml").write_bytes(data)
        return read_stack("s.toml")

    return write_and_read


def paged(*rows, name="s1", on='"ram"', tables="0x8000_0000", more=""):
    return (
        f'[layer.{name}]\nkind = "paged"\non = {on}\ntables = {tables}\nmap = [\n'
        + "".join(f"  {{ {row} }},\n" for row in rows)
        + f"]\n{more}\n"
    )


ONE_PAGE = 'at = 0x1000, to = 0x8010_0000, size = "4 KiB"'


def test_one_stage(read):
    stack = read(paged(ONE_PAGE) + RAM)
    answer = access(stack["s1"], 0x1234, 8, Access.WRITE)
    assert [(hex(run.output), run.memory) for run in answer.runs] == [("0x80100234", "ram")]
    assert answer.refs == 4


def test_table_bytes_lie_in_the_memory(read):
    stack = read(paged(ONE_PAGE) + RAM)
    ram, table = stack["ram"].layer, stack["s1"].layer.table
    assert ram.word(0x8000_0000, 8) == 0x8000_1001  # a kernel's eye sees the root entry where the file put it
    stack["s1"].layer.table.map_run(0x2000, 0x8020_0000, 0x1000, 1, 3)
    assert access(stack["s1"], 0x2000, 1, Access.READ).runs[0].output == 0x8020_0000
    table.unmap(0x1000, 0x2000)
    assert ram.word(0x8000_0000, 8) == 0
    table.map_run(0x1000, 0x8010_0000, 0x1000, 1, 3)
    assert access(stack["s1"], 0x1000, 1, Access.READ).refs == 4
    table.check()
    stack.check()


@pytest.mark.parametrize(
    ("walker", "refs"), [("", 24), ('walker = "nested"', 24), ('walker = "physical"', 8), ('walker = "ram"', 8)]
)
def test_walkers(read, walker, refs):
    host = paged('at = 0, to = 0x8100_0000, size = "16 MiB", page = "4K"', name="host")
    tables = "0x8200_0000" if "ram" in walker else "0x0"
    guest = paged("at = 0, to = 0x10_0000, size = 0x1000", name="guest", on='"host"', tables=tables, more=walker)
    assert access(read(guest + host + RAM)["guest"], 0, 1, Access.READ).refs == refs


def test_tables_that_lead_nowhere_are_the_lower_layers_fault(read):
    host = paged("at = 0, to = 0x8100_0000, size = 0x1000", name="host")
    guest = paged("at = 0, to = 0, size = 0x1000", name="guest", on='"host"', tables="0x0")
    fault = access(read(guest + host + RAM)["guest"], 0, 1, Access.READ).fault
    assert (fault.layer, fault.fault_class, fault.walk_of, fault.address) == ("host", FaultClass.WALK, "guest", 0x1000)


def test_every_kind_in_one_file(read):
    stack = read(
        """
        [device.gpu]
        on = "gtt"
        mask = 36
        [layer.gtt]
        kind = "router"
        on = { table = "gart", direct = "bus" }
        windows = [
            { at = 0x1000_0000, size = "1 MiB", port = "table" },
            { at = 0x0, size = "16 MiB", port = "direct" },
        ]
        [layer.gart]
        kind = "flat"
        on = "bus"
        walker = "stolen"
        tables = 0x7000_0000
        base = 0x1000_0000
        size = "1 MiB"
        map = [{ at = 0x1000_1000, to = 0x2000, size = 4096 }]
        [layer.bus]
        kind = "window"
        on = "bypass"
        windows = [{ at = 0, size = "16 MiB", to = 0x8000_0000 }]
        reserved = [{ at = 0xfe_0000, size = 0x1000, kind = "msi" }]
        [layer.bypass]
        kind = "identity"
        width = 40
        on = "ram"
        [layer.off]
        kind = "blocked"
        [memory.stolen]
        base = 0x7000_0000
        size = "1 MiB"
        """
        + RAM
    )
    assert [node.name for node in stack.tops()] == ["stolen", "off", "gpu"]
    gpu = stack["gpu"]
    answer = access(gpu, 0x1000_1FF0, 8, Access.READ)
    assert [(hex(run.output), run.memory, answer.refs) for run in answer.runs] == [("0x80002ff0", "ram", 1)]
    assert access(gpu, 0x10, 8, Access.READ).runs[0].output == 0x8000_0010
    assert access(gpu, 1 << 36, 8, Access.READ).fault.layer == "gpu"
    assert access(stack["off"], 0, 8, Access.READ).fault.layer == "off"
    assert stack["gart"].walker is stack["stolen"]
    assert [str(region) for region in stack["bus"].reserved] == ["msi region [0xfe0000, 0xfe1000)"]


def test_entries_of_an_aperture_are_no_mapped_pages(read):
    """A GART of 256 MiB has 65536 entries; what a file may map is for what it maps."""
    stack = read(
        """
        [layer.gart]
        kind = "flat"
        size = "256 MiB"
        map = [{ at = 0x1000, to = 0x8000_0000, size = "8 KiB" }]
        on = "iommu"
        walker = "physical"
        """
        + paged("at = 0x8000_0000, to = 0x9000_0000, size = '128 MiB', page = '4K'", name="iommu")
        + RAM,
    )
    assert access(stack["gart"], 0x1010, 1, Access.READ).runs[0].output == 0x9000_0010
    assert stack["gart"].layer.describe() == "[0x0, 0x10000000), 2 of 65536 entries mapped, table at 0x1000"


def test_a_map_that_leads_outside_the_window_below_is_a_fault_of_the_access(read):
    stack = read(
        paged("at = 0x1000, to = 0x20_0000, size = 4096", on='"bus"', tables="0")
        + "[layer.bus]\nkind = 'window'\non = 'ram'\nwindows = [{ at = 0, size = 0x10_0000, to = 0x8000_0000 }]\n"
        + RAM,
    )
    stack.check()
    assert str(access(stack["s1"], 0x1010, 1, Access.READ).fault) == (
        "range fault of READ access at 0x200010 in layer 'bus'"
    )


@pytest.mark.parametrize("name", bundled_stacks())
def test_bundled_stacks_stand(name):
    stack = read_stack(name)
    stack.check()
    assert all(len(line) <= 80 for line in picture(*stack.tops()).splitlines())
    assert {top.layer.kind for top in stack.tops() if not top.readers} == {"device"}


def test_a_file_comes_before_a_bundled_name(read, tmp_path):
    (tmp_path / "nested").write_text(RAM)
    assert [node.name for node in read_stack("nested")] == ["ram"]


def test_walker_default_is_nested(read):
    assert read(paged(ONE_PAGE) + RAM)["s1"].walker is Walker.NESTED


HUGE = "9" * 3000
DEEP = "".join(paged(name=f"s{at}", on=f'"s{at + 1}"', tables="0x0") for at in range(6))
REFUSED = {
    "nothing": ("", ": describes no memory, no layer and no device"),
    "other tables": ("[memory2.ram]\nsize = 1\n", ":1: has no key 'memory2'; did you mean 'memory'?"),
    "control characters in a key": (
        '"a\\u001b[31m" = 1\n',
        ":1: has no key 'a\\x1b[31m'; there are memory, layer, device",
    ),
    "not tables": ("memory = 3\n", ":1: memory is 3, not a table"),
    "not a table": ("[memory]\nram = 3\n", ":2: memory.ram is 3, not a table"),
    "list of tables": ("[[layer]]\nname = 's1'\n", ":1: layer is a list, not a table"),
    "no size": ("[memory.ram]\n", ":1: memory.ram.size is missing"),
    "negative size": (
        "[memory.ram]\nsize = -5\n",
        ":2: memory.ram.size is -5, not a number of bytes from 1 to 2**64",
    ),
    "no bytes": (
        "[memory.ram]\nsize = 0\n",
        ":2: memory.ram.size is 0, not a number of bytes from 1 to 2**64",
    ),
    "true is no size": (
        "[memory.ram]\nsize = true\n",
        ':2: memory.ram.size is True, not a number of bytes, or a text such as "64 MiB"',
    ),
    "unknown unit": (
        "[memory.ram]\nsize = '4 parsecs'\n",
        ":2: memory.ram.size is '4 parsecs', not a number of bytes, or a text such as \"64 MiB\"",
    ),
    "too many tebibytes": (
        "[memory.ram]\nsize = '99999999999999999999T'\n",
        ":2: memory.ram.size is 0x56bc75e2d630fffff0000000000, not a number of bytes from 1 to 2**64",
    ),
    "three thousand digits": (
        f"[memory.ram]\nsize = {HUGE}\n",
        f":2: memory.ram.size is {int(HUGE):#x}"[:80] + "..., not a number of bytes from 1 to 2**64",
    ),
    "hexadecimal beyond 64 bits": (
        f"[memory.ram]\nsize = 1\nbase = 0x{'f' * 10_000}\n",
        f":3: memory.ram.base is 0x{'f' * 55}..., not a number of bytes from 0 to 2**64 - 1",
    ),
    "memory beyond its space": (
        "[memory.ram]\nbase = 0xffff_ffff_ffff_f000\nsize = '8K'\n",
        ":1: memory.ram: memory 'ram': 0x2000 bytes at 0xfffffffffffff000 are not in the 64-bit space",
    ),
    "one name twice": (
        "[memory.s1]\nsize = 1\n[layer.s1]\nkind = 'identity'\n",
        ":3: layer.s1: the name is that of memory.s1 already",
    ),
    "a table twice": (
        "[memory.a]\nsize = 1\n[memory.a]\nsize = 2\n",
        ":3: is not TOML: Cannot declare ('memory', 'a') twice (column 10)",
    ),
    "escape in a name": (
        '[memory."ram\\u001b[2J"]\nsize = 1\n',
        ":1: memory.'ram\\x1b[2J' is no name: 1 to 64 printable characters, no blanks",
    ),
    "text that runs backwards in a name": (
        '[memory."a\u202eb"]\nsize = 1\n',
        ":1: memory.'a\\u202eb' is no name: 1 to 64 printable characters, no blanks",
    ),
    "no name": ('[memory.""]\nsize = 1\n', ":1: memory.'' is no name: 1 to 64 printable characters, no blanks"),
    "long name": (
        f"[memory.{'a' * 100_000}]\nsize = 1\n",
        f":1: memory.'{'a' * 56}... is no name: 1 to 64 printable characters, no blanks",
    ),
    "name that means something": (
        "[memory.physical]\nsize = 1\n",
        ":1: memory.physical: the name has a meaning of its own, as a walker",
    ),
    "nul byte": (
        b"[memory.ram]\nsize = 1\0\n",
        ":2: is not TOML: Expected newline or end of document after a statement (column 9)",
    ),
    "latin-1": (b"# caf\xe9\n", ":1: is not UTF-8 text"),
    "no kind": (
        "[layer.s1]\n",
        ":1: layer.s1.kind is missing; there are identity, blocked, window, router, flat, paged",
    ),
    "unknown kind": (
        "[layer.s1]\nkind = 'pagd'\n",
        ":2: layer.s1.kind is 'pagd'; did you mean 'paged'?",
    ),
    "kind of another type": (
        "[layer.s1]\nkind = 4\n",
        ":2: layer.s1.kind is 4; there are identity, blocked, window, router, flat, paged",
    ),
    "unknown key": (
        "[layer.s1]\nkind = 'identity'\nwitdh = 4\n",
        ":3: layer.s1 has no key 'witdh'; did you mean 'width'?",
    ),
    "width": (
        "[layer.s1]\nkind = 'identity'\nwidth = 65\n",
        ":3: layer.s1.width is 65, not a number of bits from 1 to 64",
    ),
    "mask": (
        RAM + "[device.cam]\non = 'ram'\nmask = 0xffff_ffff\n",
        ":6: device.cam.mask is 4294967295, not a number of bits from 1 to 64",
    ),
    "unknown name below": (
        RAM + "[layer.s1]\nkind = 'identity'\non = 'rom'\n",
        ":6: layer.s1.on is 'rom', which nothing is named; did you mean 'ram'?",
    ),
    "on a device": (
        RAM + "[device.cam]\n[layer.s1]\nkind = 'identity'\non = 'cam'\n",
        ":7: layer.s1.on is 'cam', a device; did you mean 'ram'?",
    ),
    "unknown walker": (
        paged(ONE_PAGE, more="walker = 'rma'") + RAM,
        ":8: layer.s1.walker is 'rma', which nothing is named; did you mean 'ram'?",
    ),
    "on itself": ("[layer.a]\nkind = 'identity'\non = 'a'\n", ":1: layer.a: cycle: a > a"),
    "a way round": (
        "".join(f"[layer.{one}]\nkind = 'identity'\non = '{other}'\n" for one, other in ("ab", "bc", "cb")),
        ":4: layer.b: cycle: b > c > b",
    ),
    "a way round by table reads": (
        paged(name="a")
        + paged(name="b", on='"a"', tables="0x0")
        .replace("[layer.b]", "[layer.b]\nwalker = 'a'")
        .replace("\n]\n", "\n]\n")
        + "[layer.c]\nkind = 'identity'\non = 'b'\n"
        + RAM.replace("[memory.ram]", "[layer.ram]\nkind = 'flat'\nsize = 4096\nwalker = 'c'\n[memory.real]"),
        ":1: layer.a: cycle: a > ram > c > b > a",
    ),
    "on what": ("[layer.a]\nkind = 'identity'\non = 4\n", ":3: layer.a.on is 4, not a name or a table of names"),
    "on names that are none": (
        "[layer.a]\nkind = 'identity'\non = { x = 4 }\n",
        ":3: layer.a.on is a table, not a name or a table of names",
    ),
    "ports of what has none": (
        RAM + "[layer.a]\nkind = 'identity'\non = { x = 'ram' }\n",
        ":6: layer.a.on: it has no ports: say on = 'ram'",
    ),
    "router without ports": (
        RAM + "[layer.a]\nkind = 'router'\non = 'ram'\n",
        ':6: layer.a.on is no table of ports, such as { dram = "ram", vram = "vram" }',
    ),
    "window by an unknown port": (
        RAM + "[layer.a]\nkind = 'router'\non = { x = 'ram' }\nwindows = [{ at = 0, size = 1, port = 'y' }]\n",
        ":7: layer.a.windows[0].port is 'y'; there are x",
    ),
    "windows on each other": (
        "[layer.a]\nkind = 'window'\nwindows = [{ at = 0, size = 9 }, { at = 8, size = 1 }]\n",
        ":1: layer.a: the windows at 0x0 and 0x8 overlap by 0x1 bytes",
    ),
    "a window beyond 64 bits": (
        "[layer.a]\nkind = 'window'\nwindows = [{ at = 0, size = 9, to = 0xffff_ffff_ffff_ffff }]\n",
        ":1: layer.a: no window of 0x9 bytes at 0x0 with delta 0xffffffffffffffff",
    ),
    "windows that are none": (
        "[layer.a]\nkind = 'window'\nwindows = 3\n",
        ":3: layer.a.windows is 3, not a list of tables",
    ),
    "five thousand maps": (
        paged(*["at = 0, to = 0, size = 4096"] * 5000) + RAM,
        ":5: layer.s1.map has 5000 items, more than 4096",
    ),
    "a window that is none": (
        "[layer.a]\nkind = 'window'\nwindows = [3]\n",
        ":3: layer.a.windows[0] is 3, not a table",
    ),
    "five thousand windows": (
        f"[layer.a]\nkind = 'window'\nwindows = [{'{ at = 0, size = 1 }, ' * 5000}]\n",
        ":1: layer.a: its windows could lead 5000 ways through those below, more than 4096",
    ),
    "no place for tables": (
        RAM + "[layer.s1]\nkind = 'paged'\non = 'ram'\n",
        ":4: layer.s1.tables is missing",
    ),
    "tables in the middle of a page": (
        paged(ONE_PAGE, tables="0x8000_0800") + RAM,
        ":1: layer.s1: no table page begins at 0x80000800: they are 0x1000 bytes",
    ),
    "tables beyond what an entry can hold": (
        paged(ONE_PAGE, tables="0xf_ffff_ffff_f000") + RAM,
        ":6: layer.s1.map[0]: a table page at 0x10000000000000 is beyond 0x10000000000000",
    ),
    "tables on tables": (
        paged(ONE_PAGE) + paged(ONE_PAGE, name="s2") + RAM,
        ":9: layer.s2: the table page at 0x80000000 would lie at 0x80000000 of 'ram', on a table of 's1'",
    ),
    "unknown format": (paged(more="format = 'mok'") + RAM, ":7: layer.s1.format is 'mok'; did you mean 'mock'?"),
    "map that is none": (
        paged().replace("map = [\n]", "map = 'all'") + RAM,
        ":5: layer.s1.map is 'all', not a list of tables",
    ),
    "map without size": (paged("at = 0, to = 0") + RAM, ":6: layer.s1.map[0].size is missing"),
    "map to below zero": (
        paged("at = 0, to = -4096, size = 4096") + RAM,
        ":6: layer.s1.map[0].to is -4096, not a number of bytes from 0 to 2**64 - 1",
    ),
    "half a page": (
        paged("at = 0, to = 0, size = 2048") + RAM,
        ":6: layer.s1.map[0]: no page size of 0x40201000 maps 0x800 bytes at 0x0 to 0x0",
    ),
    "a map twice": (
        paged(ONE_PAGE, ONE_PAGE) + RAM,
        ":7: layer.s1.map[1]: a live leaf of 0x1000 bytes is at 0x1000",
    ),
    "a map beyond the input": (
        paged("at = 0xffff_ffff_f000, to = 0, size = 8192") + RAM,
        ":6: layer.s1.map[0]: 0x2000 bytes at 0xfffffffff000 leave the 48-bit input",
    ),
    "2**40 pages": (
        paged(f"at = 0, to = 0, size = {1 << 52}") + RAM,
        ":6: layer.s1.map[0]: 0x10000000000000 bytes at 0x0 leave the 48-bit input",
    ),
    "2**36 pages": (
        paged(f"at = 0, to = 0, size = {1 << 48}, page = '4K'") + RAM,
        ":6: layer.s1.map[0]: 68719476736 pages are more than a file may map, 65536 in all",
    ),
    "many pages in many maps": (
        paged(*(f"at = {at << 30}, to = 0, size = {1 << 27}, page = '4K'" for at in range(3))) + RAM,
        ":8: layer.s1.map[2]: 32768 pages are more than a file may map, 65536 in all",
    ),
    "an aperture of 2**40 pages": (
        RAM + "[layer.g]\nkind = 'flat'\non = 'ram'\ntables = 0x8000_0000\nsize = 0x10_0000_0000_0000\n",
        (
            ":4: layer.g: an aperture of 0x10000000000000 bytes has 1099511627776 entries, "
            "more than 1048576 of all apertures"
        ),
    ),
    "apertures of 5 GiB": (
        RAM + "".join(f"[layer.g{at}]\nkind = 'flat'\nsize = '{at} GiB'\n" for at in (2, 3)),
        ":7: layer.g3: an aperture of 0xc0000000 bytes has 786432 entries, more than 1048576 of all apertures",
    ),
    "a map of an aperture": (
        RAM + "[layer.g]\nkind = 'flat'\nsize = '1 GiB'\nmap = [{ at = 0, to = 0, size = '1 GiB' }]\n",
        ":7: layer.g.map[0]: 262144 pages are more than a file may map, 65536 in all",
    ),
    "a map where messages are": (
        paged("at = 0xfee0_0000, to = 0, size = 4096")
        + RAM
        + "reserved = [{ at = 0xfee0_0000, size = '1 MiB', kind = 'msi' }]\n",
        (
            ":1: layer.s1: the mapping [0xfee00000, 0xfee01000) of 's1' lies in the msi region "
            "[0xfee00000, 0xfef00000) of 's1'"
        ),
    ),
    "page size": (
        paged("at = 0, to = 0, size = 8192, page = 8192") + RAM,
        ":6: layer.s1.map[0].page is 0x2000, not one of 0x40000000, 0x200000, 0x1000",
    ),
    "permission": (
        paged("at = 0, to = 0, size = 4096, prot = 'rwz'") + RAM,
        ":6: layer.s1.map[0].prot is 'rwz', not r, w, rw, or words such as read|write|noexec|cache",
    ),
    "no permission": (
        paged("at = 0, to = 0, size = 4096, prot = 'noexec'") + RAM,
        ":6: layer.s1.map[0]: protection 0x8: READ or WRITE is needed, no bit above PRIV exists",
    ),
    "reserved for what": (
        "[layer.a]\nkind = 'identity'\nreserved = [{ at = 0, size = 1, kind = 'mis' }]\n",
        ":3: layer.a.reserved[0].kind is 'mis'; did you mean 'msi'?",
    ),
    "a walk without end": (
        DEEP + paged(name="s6", on='"ram"') + RAM,
        ":1: layer.s0: a walk from here could take 78124 references, more than 20000",
    ),
    "two ways, again and again": (
        "".join(
            f"[layer.a{at}]\nkind = 'window'\non = 'a{at + 1}'\n"
            "windows = [{ at = 0, size = 1 }, { at = 1, size = 1 }]\n"
            for at in range(30)
        )
        + "[layer.a30]\nkind = 'identity'\n",
        ":69: layer.a17: its windows could lead 8192 ways through those below, more than 4096",
    ),
    "regions without end": (
        f"[layer.a]\nkind = 'identity'\nreserved = [{'{ at = 0, size = 1 }, ' * 20}]\n",
        ":3: layer.a.reserved: a file may reserve 16 regions in all",
    ),
    "a hundred layers": (
        "".join(f"[layer.a{at}]\nkind = 'identity'\n" for at in range(100)),
        ": describes more than 64 memories, layers and devices",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(read, case):
    text, sentence = REFUSED[case]
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value) == f"s.toml{sentence}"
    assert caught.value.path == "s.toml"
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("name", ["nestd", "a\0b", "x" * 5000, ""])
def test_no_such_stack(read, name):
    with pytest.raises(InputError) as caught:
        read_stack(name)
    known = ", ".join(bundled_stacks())
    assert str(caught.value) == f"{name}: no such file, and no bundled stack of that name (there are {known})"


def test_a_folder_is_no_stack(read, tmp_path):
    with pytest.raises(InputError) as caught:
        read_stack(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}: can't be read: Is a directory"


VALUES = st.recursive(
    st.one_of(
        st.integers(-5, 1 << 70),
        st.sampled_from(["s1", "ram", "paged", "flat", "router", "window", "physical", "4K", "\x1b", "rw", ""]),
        st.booleans(),
        st.floats(),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["at", "to", "size", "ram", "entries", "ways", "policy", "walk"]), inner)
    ),
    max_leaves=5,
)


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in value) + '"'
    return str(value).lower()


KEYS = ["kind", "on", "walker", "tables", "map", "windows", "base", "size", "width", "format", "reserved", "tlb"]


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES), st.sampled_from(["paged", "flat", "router", "window", "identity"])
)
def test_whatever_a_file_says_it_stands_or_is_refused(tmp_path_factory, keys, kind):
    keys = {"kind": kind, "on": "ram", "tables": 0x8000_0000} | keys
    path = tmp_path_factory.mktemp("any") / "any.toml"
    path.write_text(RAM + "[layer.s1]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items()))
    try:
        stack = read_stack(str(path))
    except InputError as refused:
        sentence = str(refused).removeprefix(str(path))
        good = (
            sentence.isprintable() and sentence != str(refused) and len(sentence) < 400
        )  # a list of all formats is the longest
        assert good, sentence
    else:
        stack.check()
        assert picture(*stack.tops())
