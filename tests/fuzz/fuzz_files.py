"""Files that people and machines write beside recordings, mostly right: sidecars, logs, TOML, device trees, dumps."""

from __future__ import annotations

import gzip
import json
import struct
from functools import cache

from fuzz_traces import DATA, EDGES, RECORDINGS, cut_out, damaged_line, recording, written

from swiommu.pagetable.formats import FORMATS, format_named

STACKS = DATA.parents[1] / "swiommu" / "data" / "stacks"
PRESETS = ("passthrough", "swiotlb", "swiotlb-natural", "carveout-best-fit", "cma-bitmap", "software-iommu")
PRESETS += ("iommu-strict", "iommu-lazy", "shim-over-iommu", "cma-lending", "gcma")
SMALL_FORMATS = [name for name, form in FORMATS.items() if form.granule == 4096]


def some(rng, items, most=3):
    return rng.sample(items, rng.randint(0, min(most, len(items))))


def number(rng):
    """A number that a field may have, or an edge of what it may."""
    return rng.choice(EDGES) if rng.random() < 0.5 else rng.randrange(1 << rng.choice((4, 12, 20, 32, 48)))


def damaged_text(rng, text):
    """Lines of a text doubled, dropped, moved, changed."""
    lines = text.split(b"\n")
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        how, at = rng.randrange(5), rng.randrange(len(lines) or 1)
        if how == 0:
            del lines[at : at + 1]
        elif how == 1:
            lines.insert(at, rng.choice(lines or [b""]))
        elif how == 2:
            lines = lines[: rng.randint(1, len(lines) or 1)]
        elif lines:
            lines[at] = damaged_line(rng, lines[at], lines)
    return b"\n".join(lines)


# -- sidecars


@cache
def sidecars():
    """Those of recordings without what no reader reads, as JSON texts."""
    kept = ("name", "kernel", "arch", "page_size", "cpus", "iommu", "boot_parameters", "cma_area", "pci_functions")
    kept += ("iommu_groups", "system_ram", "dmesg_excerpt", "bounce_pool_addresses_seen", "files")
    found = []
    for name in RECORDINGS:
        facts = {key: value for key, value in recording(name)[1].items() if key in kept} | {"name": "case"}
        facts["dmesg_excerpt"] = [line for line in facts.get("dmesg_excerpt", ()) if "IO TLB" in line]
        found.append(json.dumps(facts))
    return found


def sidecar(rng, facts=None):
    """A sidecar with values of other kinds, out of range, or with other texts in them."""
    facts = json.loads(rng.choice(sidecars())) if facts is None else facts
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        holder, key = rng.choice(list(_places(facts)))
        value = holder[key]
        how = rng.randrange(8)
        if how == 0:
            del holder[key]
        elif how == 1:
            holder[key] = rng.choice((None, True, "", [], {}, -1, 0, 1.5, "0x", "\x1b[31m", 1 << 70, [[0, 1]], ["x"]))
        elif how == 2 and isinstance(holder, list):
            holder.insert(key, value)
        elif isinstance(value, str):
            holder[key] = damaged_line(rng, value.encode(), [b"0x0", b"group"]).decode("utf-8", "replace")
        elif isinstance(value, list) and value:
            holder[key] = value * rng.choice((2, 3, 40)) if how < 5 else value[: rng.randrange(len(value))]
        elif isinstance(value, int):
            holder[key] = number(rng) if how < 6 else hex(number(rng))
    return facts


def _places(value):
    """Every (holder, key) in a document."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def with_beside(rng, lines, facts, log=()):
    """The files of a recording; a JSON text that is no JSON now and then."""
    files = {"case.trace": b"\n".join(lines) + b"\n" * (rng.random() < 0.9)}
    if facts is not None:
        files["case.json"] = json.dumps(facts | {"name": facts.get("name", "case")}).encode()
        if rng.random() < 0.01:
            files["case.json"] = damaged_line(rng, files["case.json"])
    if log:
        files["case.emulator"] = b"\n".join(log) + b"\n"
    return files


# -- logs of emulated IOMMUs

LOGGED = [name for name in RECORDINGS if "qtrace" in name]


def emulator_log(rng):
    """A trace and a log: pieces of a real pair, of about the same time, damaged; at times of two families."""
    lines, facts, log = recording(rng.choice(LOGGED))
    length, begin = rng.randint(5, 120), 0 if rng.random() < 0.6 else rng.randrange(len(lines))
    first = int(begin / len(lines) * len(log))
    piece = log[first : first + rng.randint(5, 150)]
    if begin == 0:  # the beginning of a log is long and says little
        piece = [line for line in log[:400] if not line.startswith(QUIET)][: rng.randint(5, 150)]
    for _ in range(rng.choice((0, 1, 2, 4))):
        at = rng.randrange(len(piece) or 1)
        how = rng.randrange(5)
        if how == 0:
            del piece[at : at + rng.randint(1, 5)]
        elif how == 1:
            piece[at:at] = piece[at : at + rng.randint(1, 5)]
        elif how == 2:
            piece.insert(at, rng.choice(recording(rng.choice(LOGGED))[2]))
        elif how == 3 and piece:
            piece[at] = b"1234@1700000000.123456:" + piece[at]
        elif piece:
            piece[at] = damaged_line(rng, piece[at], log)
    return with_beside(rng, lines[begin : begin + length], facts | {"name": "case"}, piece or [b""])


QUIET = (b"vtd_inv_desc ", b"vtd_inv_desc_wait", b"vtd_inv_desc_iec", b"smmuv3_cmdq_consume", b"smmuv3_cmdq_opcode")
QUIET += (b"virtio_iommu_get_", b"amdvi_devtab", b"amdvi_intr")

# -- TOML


def value(rng):
    """A TOML value of any kind."""
    return rng.choice(
        (
            str(number(rng)),
            f"{number(rng):#x}",
            f"-{rng.randint(1, 1 << 50)}",
            "1.5",
            "nan",
            "inf",
            "true",
            '""',
            '"4K"',
            '"64 MiB"',
            '"rw"',
            '"\\u001b[31m"',
            "[]",
            "[1, 2]",
            "{}",
            '{ at = 1, size = "4K" }',
            "1979-05-27",
        )
    )


KNOBS = {
    "based_on": tuple(f'"{name}"' for name in PRESETS),
    "driver": ('"none"', '"linear"', '"paged"'),
    "allocator": ('""', '"best_fit"', '"bitmap"'),
    "flush": ('"strict"', '"lazy"'),
    "format": tuple(f'"{name}"' for name in SMALL_FORMATS),
    "bounce": ('"none"', '"beyond-mask"', '"all"'),
    "pool": ("0x10_0000", "0x400_0000", "100", "0", "0x4000", "0x80_0000_0000"),
    "delta": ("0", "0x1000_0000", "-0x1000_0000", "4096", "1"),
    "lends": ('""', '"movable"', '"droppable"'),
    "lent": ("0", "500_000", "1_000_000", "1"),
    "pinned": ("-1", "0", "1", "1_000_000", "2000"),
    "summary": ('"x"', '"\\u001b[31m"', '"of\\nlines"'),
}


# Knobs that go together.
TOGETHER = (
    ('based_on = "iommu-strict"', ("format", "flush", "summary")),
    ('driver = "paged"', ("format", "flush")),
    ('driver = "paged"\nallocator = "bitmap"', ("format",)),
    ('based_on = "software-iommu"', ("delta", "summary")),
    ('driver = "linear"\nallocator = "best_fit"', ("delta",)),
    ('based_on = "swiotlb"', ("pool",)),
    ('bounce = "beyond-mask"', ("pool", "pool")),
    ('based_on = "cma-lending"', ("lent", "pinned")),
    ('allocator = "bitmap"\nlends = "movable"', ("lent", "pinned")),
    ('based_on = "gcma"', ("lent",)),
    ('allocator = "bitmap"', ("pool", "bounce")),
)


def designs(rng):
    """A file of one to three designs; most of knobs that go together."""
    text = ""
    for place in range(rng.choice((1, 1, 2, 3))):
        text += f'[[design]]\nname = "d{place}"\n'
        if rng.random() < 0.85:
            first, keys = rng.choice(TOGETHER)
            text += f"{first}\n"
            keys = some(rng, sorted(set(keys)))
        else:
            keys = some(rng, list(KNOBS), 4)
        for key in keys:
            text += f"{key} = {value(rng) if rng.random() < 0.04 else rng.choice(KNOBS[key])}\n"
    return damaged_text(rng, text.encode()) if rng.random() < 0.25 else text.encode()


PRICED = ("walk_ref", "map", "unmap", "invalidation", "copied_kib")


def costs(rng):
    """A cost vector."""
    text = rng.choice(("", 'unit = "ns"\n', 'unit = "nJ"\n'))
    for name in rng.sample(PRICED, rng.randint(1, 5)):
        price = value(rng) if rng.random() < 0.05 else rng.choice(("1", "25", "0.001", "0", "1e17", "1e18", "1000"))
        source = value(rng) if rng.random() < 0.05 else rng.choice(('"guess"', '"guess"', '"measured"', '"a; b"'))
        text += f"[{name if rng.random() < 0.98 else 'frob'}]\nprice = {price}\nsource = {source}\n"
    return damaged_text(rng, text.encode()) if rng.random() < 0.3 else text.encode()


@cache
def stack_texts():
    folders = (STACKS, DATA.parent / "snapshot" / "stacks")
    return [path.read_bytes() for folder in folders for path in sorted(folder.glob("*.toml"))]


def stack(rng):
    """A stack file: a bundled one, or a chain of layers drawn; then damaged, mostly."""
    if rng.random() < 0.4:
        text = rng.choice(stack_texts())
        text = b"\n".join(line for line in text.split(b"\n") if line and not line.startswith(b"#"))
    else:
        text = chain(rng).encode()
    return damaged_text(rng, text) if rng.random() < 0.4 else text


def chain(rng):
    """A device over one to three layers over memory; what each maps mostly leads to what is below."""
    base = rng.choice((0, 0x8000_0000, 0x1_0000_0000))
    text = f'[memory.ram]\nbase = {base:#x}\nsize = "1 GiB"\n'
    below, place = "ram", base
    for depth in range(rng.randint(1, 3)):
        name, kind = (
            f"s{depth}",
            rng.choice(("paged", "paged", "paged", "window", "flat", "identity", "router", "blocked")),
        )
        text += f'[layer.{name}]\nkind = "{kind}"\n'
        text += f'on = {{ a = "{below}", b = "ram" }}\n' if kind == "router" else f'on = "{below}"\n'
        at = rng.choice((0, 0x1000, 0x20_0000, 0x1000_0000))
        if kind == "paged":
            form = rng.choice(SMALL_FORMATS if rng.random() < 0.9 else list(FORMATS))
            tables = place + rng.choice((0, 0x10_0000, 0x100_0000))
            text += f'format = "{form}"\ntables = {tables:#x}\n'
            text += f"map = [{', '.join(mapping(rng, at + 0x40_0000 * each, place) for each in range(rng.randint(1, 3)))}]\n"  # noqa: E501
            text += rng.choice(("", "", 'walker = "ram"\n', 'walker = "physical"\n', "hardware_ad = true\n"))
        elif kind == "flat":
            text += f'base = {at:#x}\nsize = "16 MiB"\ntables = {place + 0x200_0000:#x}\n'
            text += f'map = [{{ at = {at:#x}, to = {place:#x}, size = "64 KiB" }}]\n'
        elif kind in {"window", "router"}:
            port = ', port = "a"' * (kind == "router")
            text += f'windows = [{{ at = {at:#x}, size = "64 MiB", to = {place:#x}{port} }}]\n'
        elif rng.random() < 0.5:
            text += f"width = {rng.choice((32, 48, 64))}\n"
        if rng.random() < 0.4:
            which = rng.choice(("tlb", "iotlb"))
            text += f"{which} = {cache_text(rng, walk=which == 'tlb' and kind == 'paged')}\n"
        if rng.random() < 0.15:
            text += (
                f'reserved = [{{ at = {number(rng):#x}, size = "1 MiB", kind = "{rng.choice(("msi", "direct"))}" }}]\n'
            )
        below, place = name, at
    return text + f'[device.dev]\non = "{below}"\nmask = {rng.choice((32, 48, 64))}\n'


def mapping(rng, at, to):
    size = (
        rng.choice(('"4 KiB"', '"64 KiB"', '"2 MiB"', '"16 KiB"', "0x3000", "0x1000", "0x20_0000"))
        if rng.random() < 0.95
        else number(rng)
    )
    page = rng.choice(("",) * 5 + (', page = "4K"', ', page = "2M"', ', page = "64K"'))
    prot = rng.choice(("", ', prot = "r"', ', prot = "w"', ', prot = "read|noexec"'))
    return f"{{ at = {at:#x}, to = {to + rng.choice((0, 0x1000, 0x40_0000)):#x}, size = {size}{prot}{page} }}"


def cache_text(rng, *, walk):
    policy = rng.choice(("lru", "fifo", "random", "plru"))
    walks = rng.choice(("", "", ", walk = [{ entries = 4 }, { entries = 8, ways = 2 }]")) if walk else ""
    entries = rng.choice((1, 4, 16, 64))
    ways = rng.choice([ways for ways in (1, 2, 4) if ways <= entries]) if rng.random() < 0.97 else 3
    return f'{{ entries = {entries}, ways = {ways}, policy = "{policy}"{walks} }}'


# -- device trees


def _cells(*values):
    return b"".join((each & 0xFFFF_FFFF).to_bytes(4, "big") for each in values)


def tree(rng):
    """(name, properties, children): a root with memory to reserve, and devices that use it."""
    wide = rng.choice((1, 1, 2))
    cells = {"#address-cells": _cells(wide), "#size-cells": _cells(wide)}

    def address(number):
        return _cells(*((number >> 32, number) if wide == 2 else (number,)))

    nodes = []
    for place in range(rng.randint(0, 4)):
        properties = {"compatible": rng.choice((b"shared-dma-pool\0", b"restricted-dma-pool\0", b"a,b\0c\0", b""))}
        size = rng.choice((0x40_0000, 0x100_0000, 0x1000, 0, number(rng)))
        if rng.random() < 0.6:
            properties["reg"] = b"".join(
                address(0x4000_0000 + 0x1000_0000 * place) + address(size) for _ in range(rng.choice((1, 1, 2)))
            )
        if rng.random() < 0.6:
            properties["size"] = address(size)
        if rng.random() < 0.4:
            properties["alignment"] = address(rng.choice((0x40_0000, 0x1000, 3, 0)))
        if rng.random() < 0.4:
            properties["alloc-ranges"] = address(0x4000_0000) + address(rng.choice((0x4000_0000, 0)))
        for flag in some(rng, ["reusable", "no-map", "linux,cma-default", "linux,dma-default"], 2):
            properties[flag] = b""
        properties["phandle"] = _cells(place + 1)
        if rng.random() < 0.1:
            properties["status"] = b"disabled\0"
        nodes.append((f"pool@{place:x}", properties, []))
    device = ("cam@1", {"memory-region": _cells(*rng.choices((1, 2, 3, 9), k=rng.randint(0, 3)))}, [])
    reserved = ("reserved-memory", cells | {"ranges": b""}, nodes)
    return ("", dict(cells), [reserved, ("bus", {}, [device])])


def flattened(rng, tree):
    """The tree as DTB."""
    names, places = b"", {}

    def node(part):
        nonlocal names
        name, properties, children = part
        out = _cells(1) + _padded(name.encode() + b"\0")
        for key, data in properties.items():
            if key not in places:
                places[key] = len(names)
                names += key.encode() + b"\0"
            out += _cells(3, len(data), places[key]) + _padded(data)
            out += _cells(4) * (rng.random() < 0.05)
        return out + b"".join(map(node, children)) + _cells(2)

    structure = node(tree) + _cells(9)
    ranges = b"".join(struct.pack(">QQ", 0x1000 * each, 0x1000) for each in range(1, rng.randint(1, 3))) + bytes(16)
    at = 40 + len(ranges)
    total = at + len(structure) + len(names)
    version, last = rng.choice(((17, 16),) * 8 + ((16, 16),) * 3 + ((18, 17), (3, 2)))
    header = (0xD00DFEED, total, at, at + len(structure), 40, version, last, 0, len(names), len(structure))
    return struct.pack(">10I", *header) + ranges + structure + names


def _padded(data):
    return data + bytes(-len(data) % 4)


def damaged_bytes(rng, data, *, word=4, order="big"):
    """Words changed to small or extreme numbers or to other words, bytes changed, ends cut."""
    data = bytearray(data)
    for _ in range(rng.choice((0, 0, 0, 1, 2, 4))):
        how, at = rng.randrange(5), rng.randrange(len(data) or 1)
        at -= at % word
        if how == 0:
            data[at : at + word] = rng.choice((0, 1, 2, 3, 9, 0xFFFF_FFFF, 0x7FFF_FFFC, len(data))).to_bytes(
                word, order
            )
        elif how == 1:
            other = rng.randrange(0, len(data) or 1, word)
            data[at : at + word] = data[other : other + word]
        elif how == 2:
            del data[at:]
        elif how == 3:
            data[at:at] = data[at : at + word * rng.randint(1, 8)]
        elif data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def source(rng, tree, depth=0):
    """The tree as DTS."""
    name, properties, children = tree
    pad = "\t" * depth
    text = ("/dts-v1/;\n" if not depth else "") + f"{pad}{name or '/'} {{\n"
    for key, data in properties.items():
        if not data:
            text += f"{pad}\t{key};\n"
        elif data.endswith(b"\0") and data.strip(b"\0").isascii() and data[:1].isalpha():
            text += f"{pad}\t{key} = " + ", ".join(f'"{part.decode()}"' for part in data[:-1].split(b"\0")) + ";\n"
        else:
            words = " ".join(hex(int.from_bytes(data[at : at + 4], "big")) for at in range(0, len(data), 4))
            text += f"{pad}\t{key} = <{words}>;\n"
    for child in children:
        text += source(rng, child, depth + 1)
    return text + f"{pad}}};\n"


def device_tree_source(rng):
    text = source(rng, tree(rng)).encode()
    if rng.random() < 0.3:
        line = rng.choice((b'/include/ "case.dts"', b'/incbin/("/dev/zero")', b"&nobody { };", b"/delete-node/ &x;"))
        text += b"/ { x = " + line + b"; };" if line.startswith(b"/incbin") else line + b"\n"
    return damaged_text(rng, text)


# -- dumps of page tables


@cache
def dumps():
    """The committed dumps that are small enough to be thrown by the thousand."""
    index = json.loads((DATA / "tables" / "index.json").read_text())
    found = {name: gzip.decompress((DATA / "tables" / f"{name}.bin.gz").read_bytes()) for name in SMALL_FORMATS}
    return [(name, data, int(index[name]["root"], 16)) for name, data in found.items() if len(data) < 1 << 19]


def dump(rng):
    """Bytes of memory with tables in it, and the options to read them by."""
    if rng.random() < 0.03:
        name, data, root = rng.choice(dumps())
        data = damaged_bytes(rng, data, word=8, order="little")
        return data, {"format": name, "root": root, "base": 0}
    name = rng.choice(SMALL_FORMATS if rng.random() < 0.97 else list(FORMATS))
    form = format_named(name)
    base = rng.choice((0, 0, 0x1000, 0x8000_0000, (1 << 40)))
    base -= base % form.granule
    tables = [base + form.granule * each for each in range(rng.randint(1, 6))]
    data = bytearray(form.granule * len(tables))
    for place in range(rng.randint(1, 24)):
        depth = rng.randrange(form.start, len(form.levels))
        at = (
            rng.randrange(0, len(data), 8)
            if rng.random() < 0.4
            else 8 * rng.randrange(16) + form.granule * rng.randrange(len(tables))
        )
        data[at : at + 8] = word(rng, form, depth, tables, place).to_bytes(8, "little")
    if rng.random() < 0.15:
        data = damaged_bytes(rng, data, word=8, order="little")
    options = {"format": name, "root": rng.choice(tables), "base": base}
    if rng.random() < 0.1:
        options["root"] = number(rng)
    if rng.random() < 0.1:
        options["levels"] = rng.randint(1, 7)
    if rng.random() < 0.3:
        options["at"] = rng.choice((0, 0x1000, 0x20_0123, number(rng)))
    return bytes(data), options


def word(rng, form, depth, tables, place):
    """An entry of a table, mostly one that the level may hold."""
    draw = rng.random()
    if draw < 0.5:
        return form.table_entry(rng.choice((*tables, 1 << 30)), depth)
    level = form.levels[depth]
    if draw < 0.85 and level.can_leaf:
        return form.leaf_entry(place << level.shift & (1 << form.output_width) - 1, depth, rng.choice((1, 2, 3)), 0)
    return rng.getrandbits(64) if draw < 0.95 else rng.choice((1, 3, (1 << 64) - 1))


# -- command lines of kernels

WORDS = ("cma=", "hugetlb_cma=", "numa_cma=", "cma_pernuma=", "swiotlb=", '"', "--", "quiet", "cma", "=")
SIZES = (
    "64M",
    "1G",
    "0",
    "16777216",
    "0x1000000",
    "64m@0x40000000",
    "8M@1G-2G",
    "8M@1G-1G",
    "12E",
    "-1",
    "9" * 30,
    "0:16M,1:16M",
)


def command_line(rng):
    parts = [rng.choice(WORDS) + rng.choice((*SIZES, "")) for _ in range(rng.randint(0, 5))]
    return damaged_line(rng, " ".join(parts).encode()).decode("latin-1") if rng.random() < 0.3 else " ".join(parts)


__all__ = [
    "command_line",
    "costs",
    "cut_out",
    "designs",
    "device_tree_source",
    "dump",
    "emulator_log",
    "flattened",
    "sidecar",
    "stack",
    "tree",
    "with_beside",
    "written",
]
