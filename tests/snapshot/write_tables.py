"""Write tests/data/tables anew: a dump of memory with page tables for every format, and what is in each (index.json).

    python tests/snapshot/write_tables.py

The dumps are committed: a snapshot is of what `explain table` reads, so it must not follow what a domain writes today.
In each are leaves of every size, runs that go on in the next table, a table named twice, a loop, a table that is not in
the dump, and words that are no entry.
"""

import gzip
import json
from pathlib import Path

from swiommu.address import Prot
from swiommu.pagetable import CountingTables, RadixTable
from swiommu.pagetable.dump import dump_table
from swiommu.pagetable.formats import FORMATS

FOLDER = Path(__file__).parents[1] / "data" / "tables"
GIB = 1 << 30


def tables_of(form):
    """The bytes of tables of that format from address 0 on, where the root is, and addresses worth a walk."""
    table = RadixTable(form, CountingTables())
    size, places = form.granule, [0, form.granule, GIB, GIB + 5 * form.granule + 3]
    table.map_run(size, 2 * GIB, size, 9, Prot.READ | Prot.WRITE)
    table.map_run(GIB, 4 * GIB, size, 1600, Prot.READ)
    at = 2 * GIB
    for bit in range(12, 40):
        page = 1 << bit
        if form.pgsize_bitmap & page:
            at = -(-at // page) * page
            table.map_run(at, 8 * GIB if bit < 33 else 1 << bit, page, 2, Prot.READ | Prot.WRITE * (bit % 2))
            places.append(at + page + 1)
            at += 2 * page
    pages = dump_table(table)
    data = bytearray(max(address + len(page) for address, page in pages.items()))
    for address, page in pages.items():
        data[address : address + len(page)] = page
    return data, table.root, [*places, at, at + 64 * GIB, (1 << form.input_width) - 1]


def damage(data, root, form):
    """What no kernel writes, in free entries of the root: a loop, a missing table twice, two that are nonsense."""
    beyond = len(data) + 64 * form.granule
    words = [form.table_entry(at, form.start) for at in (root, beyond, beyond)] + [(1 << 64) - 2, 0x1234_5678]
    free = [at for at in range(root, root + 4096, 8) if not any(data[at : at + 8])]
    for at, word in zip(free[1:], words, strict=False):
        data[at : at + 8] = word.to_bytes(8, "little")


def main():
    FOLDER.mkdir(exist_ok=True)
    index = {}
    for name, form in FORMATS.items():
        data, root, places = tables_of(form)
        damage(data, root, form)
        (FOLDER / f"{name}.bin.gz").write_bytes(gzip.compress(bytes(data), mtime=0))
        index[name] = {"root": hex(root), "at": [hex(place) for place in places]}
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
