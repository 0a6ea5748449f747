"""`swiommu explain table` as a shell runs it."""

import json
import os
from pathlib import Path
from random import Random

import pytest

from swiommu.address import Prot
from swiommu.pagetable import CountingTables, RadixTable
from swiommu.pagetable.dump import MOST_ROWS, dump_table
from swiommu.pagetable.formats import FORMATS, format_named

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "utf-8"}
ERROR = "Error: Invalid value for "
HEADERS = "whose headers are no memory"
TREE = """\
x86-64-4, 4 levels from root 0x1000: 8,044 leaves (8,036 x 4K, 8 x 2M) map 47.4 MiB.

0x0-0x7fffffffff: table 0x2000
  0x0-0x3fffffff: table 0x3000
    0x0-0x1fffff: table 0x4000
      0x1000-0x9fff -> 0x80000000  9 x 4K RW
    0x200000-0x5fffff -> 0x40000000  2 x 2M R
  0x40000000-0x7fffffff: table 0x5000
    0x40000000-0x405fffff -> 0x100000000  1,536 x 4K RW, in 3 tables, the first 0x6000
    0x40600000-0x407fffff: table 0x9000
      0x40600000-0x407cffff -> 0x100600000  464 x 4K RW
0x28000000000-0x3ffffffffff: 3 x table 0x2000, as at 0x0
0x40000000000-0x47fffffffff: table 0x1000, a loop: it is inside of itself
0x48000000000-0x4ffffffffff: table 0x99000, not in the dump
0x50000000000-0x5ffffffffff: 2 words are refused, the first 0x8000000: it is neither a leaf nor a table
0x60000000000-0x67fffffffff: 0x10e7 is refused: it would be a leaf at a level of tables

In the tables read: 3 refused words, 1 table not in the dump, 1 loop.
"""
NARROW = """\
x86-64-4, 4 levels from root 0x1000: 8,044 leaves (8,036 x
4K, 8 x 2M) map 47.4 MiB.

0x0-0x7fffffffff: table 0x2000
 0x0-0x3fffffff: table 0x3000
  0x0-0x1fffff: table 0x4000
   0x1000-0x9fff -> 0x80000000  9 x 4K RW
  0x200000-0x5fffff -> 0x40000000  2 x 2M R
 0x40000000-0x7fffffff: table 0x5000
  0x40000000-0x405fffff -> 0x100000000  1,536 x 4K RW, in 3
     tables, the first 0x6000
... and 7 more lines.

In the tables read: 3 refused words, 1 table not in the
dump, 1 loop.
"""
WALK = """\
x86-64-4, 4 levels from root 0x1000: the walk to 0x40001010

  1  at 0x1000: 0x2027, next table at 0x2000
  2  at 0x2008: 0x5027, next table at 0x5000
  3  at 0x5000: 0x6027, next table at 0x6000
  4  at 0x6008: 0x100001067, page of 4K at 0x100001000, RW

0x40001010 leads to 0x100001010, RW.
"""


@pytest.fixture
def scattered(tmp_path, monkeypatch):
    """Seven tables, four of the last level with 512 leaves each, no two of which are one run; 1,600 rows are told."""
    form = format_named("vtd-ss-4")
    tables = [[0] * 512 for _ in range(7)]
    for upper in range(3):
        tables[upper][0] = form.table_entry((upper + 1) << 12, upper)
    for number in range(4):
        tables[2][number] = form.table_entry((3 + number) << 12, 2)
        tables[3 + number] = [form.leaf_entry((2 * place + number) << 12, 3, 3, 0) for place in range(512)]
    (tmp_path / "scattered.bin").write_bytes(b"".join(word.to_bytes(8, "little") for table in tables for word in table))
    assert MOST_ROWS == 65536
    for module in ("swiommu.answers.table", "swiommu.report.table"):
        monkeypatch.setattr(f"{module}.MOST_ROWS", 1600)


@pytest.mark.usefixtures("scattered")
def test_what_is_left_out_is_told(swiommu):
    options = {"file": "scattered.bin", "form": "vtd-ss-4", "root": "0x0", "process": False}
    status, out, err = explained(swiommu, "--json", **options)
    answer = json.loads(out)
    assert (status, err, answer["leaves"]) == (0, "", {"4096": 2048})
    assert answer["left_out"] == {"tables": 1, "rows": 512}
    assert sum(len(table["rows"]) for table in answer["tables"]) == 2048 + 6 - 512
    status, out, err = explained(swiommu, "--limit", "0", **options)
    assert (status, err, len(out.splitlines())) == (0, "", 1600 + 3)
    assert out.splitlines()[-1] == f"... and {2048 + 6 - 1600} more lines."


@pytest.fixture
def dump(tmp_path):
    """Memory from address 0 on with a table of ours, and beside it whatever else there may be."""
    form = format_named("x86-64-4")
    table = RadixTable(form, CountingTables())
    table.map_run(0x1000, 0x8000_0000, 0x1000, 9, Prot.READ | Prot.WRITE)
    table.map_run(0x20_0000, 0x4000_0000, 0x20_0000, 2, Prot.READ)
    table.map_run(0x4000_0000, 0x1_0000_0000, 0x1000, 2000, Prot.READ | Prot.WRITE)
    extra = [*[form.table_entry(0x2000, 0)] * 3, form.table_entry(0x1000, 0), form.table_entry(0x99000, 0)]
    extra += [0x800_0000, 0x800_0000, form.leaf_entry(0x1000, 1, 3, 0)]
    path = tmp_path / "memory.bin"
    with path.open("wb") as file:
        for address, data in dump_table(table).items():
            file.seek(address)
            file.write(data)
        file.seek(0x1000 + 8 * 5)
        file.write(b"".join(word.to_bytes(8, "little") for word in extra))
    return path


def explained(swiommu, *arguments, file="memory.bin", form="x86-64-4", root="0x1000", **options):
    run = swiommu("explain", "table", file, "--format", form, "--root", root, *arguments, **options)
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def test_the_tree(swiommu, dump):
    assert explained(swiommu) == (0, TREE, "")
    assert explained(swiommu, "--limit", "0") == (0, TREE, "")


def test_a_narrow_terminal_and_a_limit(swiommu, dump):
    assert explained(swiommu, "--limit", "7", env=ENVIRONMENT | {"COLUMNS": "60"}) == (0, NARROW, "")


def test_the_walk_to_one_address(swiommu, dump):
    assert explained(swiommu, "--at", "0x40001010") == (0, WALK, "")


@pytest.mark.parametrize(
    ("at", "last_step", "end"),
    [
        ("0xffff800000000000", "  1  at 0x1800: 0x0, empty", "0xffff800000000000 leads nowhere."),
        ("0x50000000000", "  1  at 0x1050: 0x8000000, refused: it is neither a leaf nor a table", None),
        ("0x48000000000", "  2  at 0x99000: it is not in the dump", "0x48000000000 leads nowhere."),
        ("0x400010", "  3  at 0x3010: 0x402000a5, page of 2M at 0x40200000, R", "0x400010 leads to 0x40200010, R."),
    ],
)
def test_where_a_walk_ends(swiommu, dump, at, last_step, end):
    status, out, _ = explained(swiommu, "--at", at)
    lines = out.splitlines()
    assert (status, lines[-3], lines[-1]) == (0, last_step, end or f"{at} leads nowhere.")


def test_standard_input_and_a_base_tell_the_same(swiommu, dump, tmp_path):
    data = dump.read_bytes()[0x1000:]
    (tmp_path / "cut.bin").write_bytes(data)
    assert explained(swiommu, "--base", "0x1000", file="cut.bin") == (0, TREE, "")
    assert explained(swiommu, "--base", "0x1000", file="-", input=data) == (0, TREE, "")


def test_the_document(swiommu, dump):
    status, out, _ = explained(swiommu, "--json")
    answer = json.loads(out)
    assert (status, answer["schema"], answer["root"], answer["levels"]) == (0, "swiommu.explain.table/1", "0x1000", 4)
    assert (answer["leaves"], answer["mapped"], answer["exhausted"]) == ({"4096": 8036, "2097152": 8}, 49692672, False)
    assert answer["left_out"] == {"tables": 0, "rows": 0}
    assert [table["address"] for table in answer["tables"]] == [
        "0x1000",
        "0x2000",
        "0x3000",
        "0x4000",
        "0x5000",
        "0x9000",
    ]
    kinds = [row["kind"] for row in answer["tables"][0]["rows"]]
    assert kinds == ["table", "table", "loop", "missing", "refused", "refused"]
    assert [row["table"] for row in answer["tables"][0]["rows"]] == [1, 1, None, None, None, None]
    assert answer["tables"][4]["rows"][0] == {
        "kind": "leaves",
        "offset": "0x0",
        "size": "0x600000",
        "number": 1536,
        "to": "0x100000000",
        "advances": True,
        "prot": ["READ", "WRITE", "CACHE"],
        "why": None,
        "table": None,
        "in_tables": 3,
        "first_table": "0x6000",
    }
    assert answer["walk"] is None


def test_the_document_of_a_walk(swiommu, dump):
    walk = json.loads(explained(swiommu, "--json", "--at", "0x1010")[1])["walk"]
    assert (walk["output"], walk["page_size"], walk["prot"]) == ("0x80000010", 4096, ["READ", "WRITE", "CACHE"])
    assert walk["steps"][3] == {
        "depth": 3,
        "address": "0x4008",
        "word": "0x80000067",
        "says": "leaf",
        "to": "0x80000000",
        "why": None,
    }


def test_nothing_mapped(swiommu, tmp_path):
    (tmp_path / "memory.bin").write_bytes(bytes(0x2000))
    assert explained(swiommu) == (0, "x86-64-4, 4 levels from root 0x1000: nothing is mapped.\n", "")


def test_a_table_that_has_grown(swiommu, tmp_path):
    table = RadixTable(format_named("amd-v1"), CountingTables())
    table.map_run(0, 0x8000_0000, 0x1_0000, 1, Prot.READ)
    table.map_run(1 << 39, 0x8000_0000, 0x1000, 1, Prot.READ)
    data = bytearray(0x20000)
    for address, page in dump_table(table).items():
        data[address : address + len(page)] = page
    (tmp_path / "memory.bin").write_bytes(data)
    status, out, _ = explained(swiommu, "--levels", "4", form="amd-v1", root=hex(table.root))
    assert (status, out.splitlines()[0]) == (
        0,
        f"amd-v1, 4 levels from root {table.root:#x}: 2 leaves (1 x 4K, 1 x 64K) map 68 KiB.",
    )


@pytest.mark.parametrize(
    ("arguments", "status", "last"),
    [
        ({"file": "none.bin"}, 3, "swiommu: none.bin: can't be read: No such file or directory"),
        ({"file": "."}, 3, "swiommu: .: can't be read: Is a directory"),
        ({"file": "\x1b[31m"}, 3, "swiommu: ?[31m: can't be read: No such file or directory"),
        ({"file": ""}, 2, ERROR + "'DUMP': the name is empty."),
        ({"file": "empty.bin"}, 3, "swiommu: empty.bin: is empty"),
        ({"file": "-", "input": b""}, 3, "swiommu: -: is empty"),
        ({"file": "/dev/zero"}, 3, "swiommu: /dev/zero: is larger than 256 MiB: save it in a file"),
        (
            {"file": "core"},
            3,
            f"swiommu: core: is an ELF core, {HEADERS}: dump with `pmemsave`, or cut the memory out of it",
        ),
        ({"file": "memory.gz"}, 3, "swiommu: memory.gz: is compressed with gzip: decompress it first"),
        ({"root": "0x1008"}, 3, "swiommu: memory.bin: the root 0x1008 is not aligned to its 0x1000 bytes"),
        (
            {"root": "0x100000"},
            3,
            "swiommu: memory.bin: the root, 0x1000 bytes at 0x100000, is not all in the dump",
        ),
        ({"more": ["--levels", "5"]}, 3, "swiommu: memory.bin: format 'x86-64-4' has 1 to 4 levels, not 5"),
        (
            {"more": ["--base", "0xffffffffffff0000"]},
            3,
            "swiommu: memory.bin: 0x100010 bytes at 0xffffffffffff0000 leave the addresses from 0 to 2**64 - 1",
        ),
        (
            {"form": "x86-64"},
            2,
            ERROR + "'--format': no page-table format is named 'x86-64'; did you mean 'x86-64-5'?",
        ),
        ({"root": "top"}, 2, ERROR + "'--root': 'top' is no address: a number such as 0x10000."),
        ({"more": ["--base", "-1"]}, 2, ERROR + "'--base': an address is from 0 to 2**64 - 1."),
        ({"more": ["--levels", "0"]}, 2, ERROR + "'--levels': 0 is not in the range x>=1."),
        ({"more": ["--limit", "-1"]}, 2, ERROR + "'--limit': -1 is not in the range x>=0."),
        (
            {"more": ["--at", "0x1000000000000"]},
            2,
            ERROR + "'--at': 0x1000000000000 is beyond the sign-extended 48-bit input of format 'x86-64-4'.",
        ),
    ],
)
def test_refused(swiommu, dump, tmp_path, arguments, status, last):
    with dump.open("ab") as file:
        file.truncate(0x100010)
    (tmp_path / "empty.bin").touch()
    (tmp_path / "core").write_bytes(b"\x7fELF" + bytes(0x2000))
    (tmp_path / "memory.gz").write_bytes(b"\x1f\x8b" + bytes(0x2000))
    arguments = dict(arguments)
    found, out, err = explained(swiommu, *arguments.pop("more", []), **arguments)
    assert (found, out, err.splitlines()[-1]) == (status, "", last)
    assert status == 2 or err.count("\n") == 1


def test_help_names_every_format(swiommu):
    text = swiommu("explain", "table", "--help").stdout.decode()
    assert [name for name in FORMATS if name not in text.replace(",", "").split()] == []


def test_a_dump_of_noise_is_told_while_somebody_waits(swiommu, tmp_path):
    (tmp_path / "memory.bin").write_bytes(Random(1).randbytes(1 << 20))
    for form in ("mock", "vtd-ss-5"):
        status, out, err = explained(swiommu, form=form, timeout=60)
        assert (status, err) == (0, "")
        assert 200 < len(out.splitlines()) < 300  # some are broken
        assert "... and " in out
