"""Every event kind by lines of real kernels, both versions, down to each column."""

import re

import pytest

from swiommu.errors import InvalidArgument
from swiommu.trace import KIND_OF, SPEC_OF, EventTable, Kind, ScatterList, Text, read_trace, write_text
from swiommu.trace.eventspec import TEXT_COLUMNS
from swiommu.trace.table import COLUMNS
from swiommu.trace.texts import TextReaders

# (event, text, what the row holds; columns not named are 0, empty or -1)
EXAMPLES = [
    (
        "dma_map_page",
        "0000:00:01.0 dir=FROM_DEVICE dma_addr=495a4000 size=4096 phys_addr=a495a4000 attrs=",
        {"device": "0000:00:01.0", "name": "FROM_DEVICE", "addr": 0x495A4000, "size": 4096, "phys": 0xA495A4000},
    ),
    (
        "dma_map_phys",
        "0000:00:03.0 dir=TO_DEVICE dma_addr=ffffffffffffffff size=1514 phys_addr=9dd8042 attrs=WEAK_ORDERING|MMIO",
        {
            "device": "0000:00:03.0",
            "name": "TO_DEVICE",
            "addr": (1 << 64) - 1,
            "size": 1514,
            "phys": 0x9DD8042,
            "flags": "WEAK_ORDERING|MMIO",
        },
    ),
    (
        "dma_map_resource",
        "a b dir=TO_DEVICE dma_addr=1000 size=4 phys_addr=fe000000 attrs=",
        {"device": "a b", "name": "TO_DEVICE", "addr": 0x1000, "size": 4, "phys": 0xFE000000, "flags": "MMIO"},
    ),
    (
        "dma_map_resource",
        "dma0 dir=TO_DEVICE dma_addr=1000 size=4 phys_addr=fe000000 attrs=NO_WARN",
        {"device": "dma0", "name": "TO_DEVICE", "addr": 0x1000, "size": 4, "phys": 0xFE000000, "flags": "NO_WARN|MMIO"},
    ),
    (
        "dma_unmap_page",
        "0000:00:01.0 dir=FROM_DEVICE dma_addr=495a4000 size=4096 attrs=",
        {"device": "0000:00:01.0", "name": "FROM_DEVICE", "addr": 0x495A4000, "size": 4096},
    ),
    (
        "dma_unmap_phys",
        "0000:00:01.0 dir=BIDIRECTIONAL dma_addr=9dd8000 size=18446744073709551615 attrs=SKIP_CPU_SYNC",
        {
            "device": "0000:00:01.0",
            "name": "BIDIRECTIONAL",
            "addr": 0x9DD8000,
            "size": (1 << 64) - 1,
            "flags": "SKIP_CPU_SYNC",
        },
    ),
    (
        "dma_unmap_resource",
        "dma0 dir=NONE dma_addr=0 size=0 attrs=",
        {"device": "dma0", "name": "NONE"},
    ),
    (
        "dma_map_sg",
        (
            "0000:00:1f.2 dir=FROM_DEVICE nents=3/3 ents=1/1 dma_addrs={0xfff3f900} sizes={0x20200} "
            "phys_addrs={0x64fdf900,0x64fe9000,0x5c600000} attrs=NO_WARN"
        ),
        {
            "device": "0000:00:1f.2",
            "name": "FROM_DEVICE",
            "addr": 0xFFF3F900,
            "phys": 0x64FDF900,
            "size": 0x20200,
            "extra": 3,
            "flags": "NO_WARN",
            "sg": ScatterList((0x64FDF900, 0x64FE9000, 0x5C600000), (0xFFF3F900,), (0x20200,), 3, 1),
        },
    ),
    (
        "dma_map_sg",
        "d dir=NONE nents=2/300 ents=1/129 [TRUNCATED] dma_addrs={0x1000} sizes={0x200} phys_addrs={0x1,0x2} attrs=",
        {
            "device": "d",
            "name": "NONE",
            "addr": 0x1000,
            "phys": 1,
            "size": 0x200,
            "extra": 300,
            "sg": ScatterList((1, 2), (0x1000,), (0x200,), 300, 129),
        },
    ),
    (
        "dma_map_sg",  # before February 2026
        "d dir=TO_DEVICE dma_addrs={0x1000} sizes={0x200} phys_addrs={0x1} attrs=",
        {
            "device": "d",
            "name": "TO_DEVICE",
            "addr": 0x1000,
            "phys": 1,
            "size": 0x200,
            "extra": 1,
            "sg": ScatterList((1,), (0x1000,), (0x200,), 1, 1),
        },
    ),
    (
        "dma_unmap_sg",
        "0000:00:01.0 dir=FROM_DEVICE phys_addrs={0x473ec000,0x47276000} attrs=",
        {
            "device": "0000:00:01.0",
            "name": "FROM_DEVICE",
            "phys": 0x473EC000,
            "extra": 2,
            "sg": ScatterList((0x473EC000, 0x47276000), (), (), 2, 0),
        },
    ),
    (
        "dma_unmap_sg",
        "d dir=FROM_DEVICE phys_addrs={} attrs=",
        {"device": "d", "name": "FROM_DEVICE", "sg": ScatterList((), (), (), 0, 0)},
    ),
    (
        "dma_map_sg_err",
        "0000:00:01.0 dir=TO_DEVICE dma_addrs={0x1000,0x5000} err=-11 attrs=",
        {
            "device": "0000:00:01.0",
            "name": "TO_DEVICE",
            "phys": 0x1000,
            "extra": 2,
            "err": -11,
            "sg": ScatterList((0x1000, 0x5000), (), (), 2, 0),
        },
    ),
    (
        "dma_alloc",
        "vivid.0 dir=BIDIRECTIONAL dma_addr=b5b00000 size=462848 virt_addr=0000000015db8321 flags=GFP_KERNEL attrs=",
        {
            "device": "vivid.0",
            "name": "BIDIRECTIONAL",
            "addr": 0xB5B00000,
            "size": 462848,
            "extra": 0x15DB8321,
            "flags": "GFP_KERNEL",
        },
    ),
    (
        "dma_alloc",
        "vivid dma_addr=0 size=24883200 virt_addr=0000000000000000 flags=GFP_NOIO|__GFP_ZERO attrs=NO_WARN|PRIVILEGED",
        {
            "device": "vivid",
            "size": 24883200,
            "flags": "GFP_NOIO|__GFP_ZERO|DMA_ATTR_NO_WARN|DMA_ATTR_PRIVILEGED",
        },
    ),
    (
        "dma_alloc_pages",
        "d dir=TO_DEVICE dma_addr=1000 size=8192 virt_addr=00000000abcd0000 flags=GFP_NOWAIT attrs=",
        {
            "device": "d",
            "name": "TO_DEVICE",
            "addr": 0x1000,
            "size": 8192,
            "extra": 0xABCD0000,
            "flags": "GFP_NOWAIT",
        },
    ),
    (
        "dma_free",
        "vivid.0 dir=BIDIRECTIONAL dma_addr=b6000000 size=4149248 virt_addr=00000000c951c406 attrs=",
        {"device": "vivid.0", "name": "BIDIRECTIONAL", "addr": 0xB6000000, "size": 4149248, "extra": 0xC951C406},
    ),
    (
        "dma_free",
        "vivid.0 dma_addr=b6000000 size=0 virt_addr=0000000000000000 attrs=",
        {"device": "vivid.0", "addr": 0xB6000000},
    ),
    (
        "dma_free_pages",
        "d dir=TO_DEVICE dma_addr=1000 size=8192 virt_addr=00000000abcd0000 attrs=",
        {"device": "d", "name": "TO_DEVICE", "addr": 0x1000, "size": 8192, "extra": 0xABCD0000},
    ),
    (
        "dma_sync_single_for_cpu",
        "0000:00:02.0 dir=FROM_DEVICE dma_addr=7b8b8800 size=114",
        {"device": "0000:00:02.0", "name": "FROM_DEVICE", "addr": 0x7B8B8800, "size": 114},
    ),
    (
        "dma_sync_single_for_device",
        "0000:00:03.0 dir=FROM_DEVICE dma_addr=7a0ed000 size=4096",
        {"device": "0000:00:03.0", "name": "FROM_DEVICE", "addr": 0x7A0ED000, "size": 4096},
    ),
    (
        "dma_sync_sg_for_cpu",
        "d dir=FROM_DEVICE dma_addrs={0x1000,0x4000} sizes={0x10,0x20}",
        {
            "device": "d",
            "name": "FROM_DEVICE",
            "addr": 0x1000,
            "size": 0x30,
            "sg": ScatterList((), (0x1000, 0x4000), (0x10, 0x20), 0, 2),
        },
    ),
    (
        "dma_sync_sg_for_device",
        "d dir=FROM_DEVICE dma_addrs={} sizes={}",
        {"device": "d", "name": "FROM_DEVICE", "sg": ScatterList((), (), (), 0, 0)},
    ),
    (
        "map",
        "IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x0000000008090000 size=4096",
        {"addr": 0xFFFFF000, "phys": 0x8090000, "size": 4096},
    ),
    (
        "map",  # the last page: the end wraps
        "IOMMU: iova=0xfffffffffffff000 - 0x0000000000000000 paddr=0x0000000008090000 size=4096",
        {"addr": 0xFFFF_FFFF_FFFF_F000, "phys": 0x8090000, "size": 4096},
    ),
    (
        "unmap",
        "IOMMU: iova=0x00000000ffffc000 - 0x00000000ffffe000 size=8192 unmapped_size=4096",
        {"addr": 0xFFFFC000, "size": 8192, "extra": 4096},
    ),
    (
        "io_page_fault",
        "IOMMU:arm-smmu-v3 0000:00:01.0 iova=0x0000000012345000 flags=0x0001",
        {"device": "0000:00:01.0", "name": "arm-smmu-v3", "addr": 0x12345000, "flags": "0x0001"},
    ),
    ("add_device_to_group", "IOMMU: groupID=1 device=0000:00:01.0", {"device": "0000:00:01.0", "extra": 1}),
    ("remove_device_from_group", "IOMMU: groupID=12 device=a b", {"device": "a b", "extra": 12}),
    ("attach_device_to_domain", "IOMMU: device=0000:00:01.0", {"device": "0000:00:01.0"}),
    (
        "cache_tag_flush_range",
        "dmar0 dmar0[0] type iotlb did 3 [0x7fffffd000-0x7fffffdfff] addr 0x7fffffd000 pages 0x1 mask 0x0",
        {
            "device": "dmar0",
            "name": "dmar0",
            "addr": 0x7FFFFFD000,
            "phys": 0x7FFFFFDFFF,
            "extra": 3,
            "flags": "iotlb",
        },
    ),
    (
        "cache_tag_flush_range",  # 7.3
        "dmar0 0000:00:01.0[5] type devtlb did 3 [0x0-0xffffffffffffffff] addr 0x0 mask 0x34",
        {
            "device": "0000:00:01.0",
            "name": "dmar0",
            "phys": (1 << 64) - 1,
            "size": 0x34,
            "extra": 3,
            "err": 5,
            "flags": "devtlb",
        },
    ),
    (
        "cache_tag_flush_range_np",
        "dmar0 dmar0[0] type iotlb did 3 [0xfffff000-0xffffffff] addr 0xfffff000 pages 0x1 mask 0x0",
        {"device": "dmar0", "name": "dmar0", "addr": 0xFFFFF000, "phys": 0xFFFFFFFF, "extra": 3, "flags": "iotlb"},
    ),
    *(
        (
            event,
            "dmar0/0000:00:1f.2 type iotlb did 3 pasid 7 ref 1",
            {"device": "0000:00:1f.2", "name": "dmar0", "size": 1, "extra": 3, "err": 7, "flags": "iotlb"},
        )
        for event in ("cache_tag_flush_all", "cache_tag_assign", "cache_tag_unassign")
    ),
    (
        "qi_submit",
        "iotlb_inv dmar0: 0x300f2 0xffffd040 0x0 0x7",
        {"device": "dmar0", "name": "iotlb_inv", "addr": 0x300F2, "phys": 0xFFFFD040, "extra": 7},
    ),
    ("cma_alloc_start", "name=reserved count=113 align=7", {"name": "reserved", "size": 113, "extra": 7}),
    (
        "cma_alloc_start",  # 7.3
        "name=linux,cma request_count=225 available_count=24512 total_count=24576 align=8",
        {"name": "linux,cma", "size": 225, "addr": 24512, "phys": 24576, "extra": 8},
    ),
    (
        "cma_alloc_finish",
        "name=reserved pfn=0xb5b00 page=00000000cefbf4f9 count=113 align=7 errorno=0",
        {"name": "reserved", "addr": 0xB5B00, "size": 113, "extra": 7},
    ),
    (
        "cma_alloc_finish",
        "name=reserved pfn=0xffffffffffffffff page=0000000000000000 count=6075 align=8 errorno=-12",
        {"name": "reserved", "addr": (1 << 64) - 1, "size": 6075, "extra": 8, "err": -12},
    ),
    (
        "cma_alloc_finish",  # 7.3; pointers before the hash key exists
        "name=reserved pfn=0x0 page=(____ptrval____) count=1013 align=8 errorno=-16",
        {"name": "reserved", "size": 1013, "extra": 8, "err": -16},
    ),
    (
        "cma_alloc_busy_retry",
        "name=reserved pfn=0x5c500 page=0000000038ed5583 count=4050 align=8",
        {"name": "reserved", "addr": 0x5C500, "size": 4050, "extra": 8},
    ),
    (
        "cma_release",
        "name=reserved pfn=0xb6000 page=00000000ef80c34c count=1013",
        {"name": "reserved", "addr": 0xB6000, "size": 1013},
    ),
    (
        "swiotlb_bounced",
        "dev_name: 0000:00:02.0 dma_mask=ffffffff dev_addr=1099978c0 size=1522 NORMAL",
        {"device": "0000:00:02.0", "extra": 0xFFFFFFFF, "phys": 0x1099978C0, "size": 1522, "flags": "NORMAL"},
    ),
    (
        "swiotlb_bounced",
        "dev_name: 0000:00:01.0 dma_mask=ffffffffffffffff dev_addr=c8ce000 size=4096 FORCE",
        {"device": "0000:00:01.0", "extra": (1 << 64) - 1, "phys": 0xC8CE000, "size": 4096, "flags": "FORCE"},
    ),
    (
        "tracing_mark_write",
        "V4L /dev/video3 REQBUFS 640x360 RGBP: want=6 [000] 1.5: dma_map_page: x",
        {"flags": "V4L /dev/video3 REQBUFS 640x360 RGBP: want=6 [000] 1.5: dma_map_page: x"},
    ),
    ("tracing_mark_write", "", {}),
    (
        "iova_init",
        "(init_iova_domain+0x0/0x90) iovad=0xffff00000315b608 granule=4096 start=0x1",
        {"extra": 0xFFFF00000315B608, "size": 4096, "addr": 1},
    ),
    (
        "iova_reserve",
        "(reserve_iova+0x0/0x188) iovad=0xffff00000315b608 lo=0x10000 hi=0x3efef",
        {"extra": 0xFFFF00000315B608, "addr": 0x10000, "phys": 0x3EFEF},
    ),
    (
        "iova_alloc",
        "(alloc_iova_fast+0x0/0x378) iovad=0xffff00000315b608 size=1 limit=0xfffff flush=0",
        {"extra": 0xFFFF00000315B608, "size": 1, "addr": 0xFFFFF, "flags": "0"},
    ),
    ("iova_alloc_ret", "(iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast) ret=0xfffff", {"addr": 0xFFFFF}),
    (
        "iova_slow",
        "(alloc_iova+0x4/0x2b0) iovad=0xff1100000bee9400 size=1 limit=0xfffff aligned=1",
        {"extra": 0xFF1100000BEE9400, "size": 1, "addr": 0xFFFFF, "flags": "1"},
    ),
    (
        "iova_slow_ret",
        "(alloc_iova_fast+0x14c/0x378 <- alloc_iova) pfn_hi=0xfffff pfn_lo=0xffff0",
        {"addr": 0xFFFF0, "phys": 0xFFFFF},
    ),
    (
        "iova_slow_ret",
        "(alloc_iova_fast+0x14c/0x378 <- alloc_iova) pfn_hi=(fault) pfn_lo=(fault)",
        {"err": -14},
    ),
    (
        "iova_free",
        "(free_iova_fast+0x0/0x200) iovad=0xffff00000315b608 pfn=0xffffc size=1",
        {"extra": 0xFFFF00000315B608, "addr": 0xFFFFC, "size": 1},
    ),
    (
        "iommu_map",
        "(iommu_map+0x0/0xf8) domain=0xffff00000315b240 iova=0xfffff000 paddr=0x8090000 size=4096 prot=0x1a",
        {"extra": 0xFFFF00000315B240, "addr": 0xFFFFF000, "phys": 0x8090000, "size": 4096, "flags": "0x1a"},
    ),
    (
        "iommu_map_nosync",
        "(iommu_map_nosync+0x4/0x310) domain=0xff1100000bef9400 iova=0xfffff000 paddr=0xc39b000 size=4096 prot=0x7",
        {"extra": 0xFF1100000BEF9400, "addr": 0xFFFFF000, "phys": 0xC39B000, "size": 4096, "flags": "0x7"},
    ),
    (
        "iommu_map_sg",
        "(iommu_map_sg+0x0/0x1e0) domain=0xffff00000315b240 iova=0xffffe000 nents=1 prot=0x7",
        {"extra": 0xFFFF00000315B240, "addr": 0xFFFFE000, "size": 1, "flags": "0x7"},
    ),
    (
        "iommu_unmap_fast",
        "(iommu_unmap_fast+0x0/0x30) domain=0xffff00000315b240 iova=0xffffc000 size=4096",
        {"extra": 0xFFFF00000315B240, "addr": 0xFFFFC000, "size": 4096},
    ),
]


def as_row(table, fields):
    """The fields that are not 0, empty or -1, strings and scatter lists resolved."""
    row = dict(zip(TEXT_COLUMNS, fields, strict=True))
    for column in ("device", "name", "flags"):
        row[column] = table.names[row[column]]
    row["sg"] = table.sg(row["sg"]) if row["sg"] >= 0 else None
    return {column: value for column, value in row.items() if value not in {0, "", None} or value == ()}


@pytest.mark.parametrize(
    ("event", "text", "expected"), EXAMPLES, ids=[f"{e}-{i}" for i, (e, *_) in enumerate(EXAMPLES)]
)
def test_every_event_by_example(event, text, expected):
    table = EventTable()
    assert as_row(table, TextReaders(table)[event](text)) == expected


def test_every_event_has_an_example_and_every_kind_a_name():
    assert {event for event, *_ in EXAMPLES} == set(SPEC_OF) == set(KIND_OF)
    assert set(KIND_OF.values()) | {Kind.LOST} == set(Kind)


@pytest.mark.parametrize(
    ("event", "text", "expected"), EXAMPLES, ids=[f"{e}-{i}" for i, (e, *_) in enumerate(EXAMPLES)]
)
def test_no_text_cut_anywhere_is_taken_for_another_number(event, text, expected):
    """A cut text is refused, or reads the same but for its last column (a decimal or a word has no end mark)."""
    if event == "tracing_mark_write":
        return
    readers = TextReaders(table := EventTable())
    for stop in range(len(text)):
        fields = readers[event](text[:stop])
        if fields is None:
            continue
        row = as_row(table, fields)
        changed = {key for key in row.keys() | expected.keys() if row.get(key) != expected.get(key)}
        assert len(changed) <= 1


@pytest.mark.parametrize(
    ("event", "text", "reason"),
    [
        ("cma_release", "name=r pfn=0x11223344556677889 page=0 count=1", "a number beyond 64 bits"),
        ("cma_release", "name=r pfn=0x1 page=0 count=18446744073709551616", "a number beyond 64 bits"),
        ("cma_release", "name=r pfn=0x1 page=0 count=99999999999999999999999", "a number beyond 64 bits"),
        ("cma_release", "name=r pfn=0x1 page=0 count=1_0", "the text is cut, or no known kernel prints it so"),
        ("cma_release", "name=r pfn=0x1 page=0 count=-1", "the text is cut, or no known kernel prints it so"),
        ("cma_release", "name=r pfn=0x1 page=0 count=\u0663", "the text is cut, or no known kernel prints it so"),
        ("cma_release", "name=r pfn=0x1 page=0 count=", "the text is cut, or no known kernel prints it so"),
        ("cma_release", "", "the text is cut, or no known kernel prints it so"),
        (
            "map",
            "IOMMU: iova=0x1000 - 0x3000 paddr=0x0 size=4096",
            "the end of the range is not its start plus its size",
        ),
        (
            "dma_map_sg",
            "d dir=NONE nents=2/2 ents=1/1 dma_addrs={0x1} sizes={0x1} phys_addrs={0x1} attrs=",
            "the lists are not as long as the printed counts say",
        ),
        (
            "dma_map_sg",
            "d dir=NONE nents=1/0 ents=1/1 dma_addrs={0x1} sizes={0x1} phys_addrs={0x1} attrs=",
            "the lists are not as long as the printed counts say",
        ),
        (
            "dma_alloc",
            "d dir=NONE dma_addr=1000 size=1 virt_addr=(____ptrval____) flags=GFP_KERNEL attrs=",
            "the kernel hid the pointer, so that begin and end can't be paired",
        ),
    ],
)
def test_why_a_text_is_refused(event, text, reason, tmp_path):
    path = tmp_path / "t.txt"
    good = "           v4l-185     [000] .....     8.0: tracing_mark_write: x"
    path.write_text(f"{good}\n           v4l-185     [000] .....     8.000001: {event}: {text}\n")
    account = read_trace(path).account
    assert account.examples == [(2, f"{event}: {reason}")]
    assert account.malformed == 1
    account.check()


# -- declarations and the writer

SLOT = re.compile(r"<(\w+):(\w+|~)>")
SAMPLE = {"d": 4096, "n": 1, "o": 3, "i": -12, "x": 0xB5B00, "p": 0xB5B00, "w": "word", "a": "NO_WARN", "b": "dmar0"}
SAMPLE |= {"t": "some device", "l": (0xB5B00,), "bounce": "FORCE", "~": "PHASE end", "f": "(fault)"}
LISTED = {"addr", "phys", "size", "extra", "sg"}  # columns that a list can decide


def written():
    for event, spec in SPEC_OF.items():
        for text in spec.texts[event]:
            kernel = text.since or text.until or "6.12"
            if spec.text(event, kernel) is text:
                yield pytest.param(event, kernel, text.template, id=f"{event}-{kernel}")


@pytest.mark.parametrize(("event", "kernel", "template"), list(written()))
def test_what_is_written_is_read_again(event, kernel, template):
    slots = {name: letter for name, letter in SLOT.findall(template) if name not in {"end", "nents", "ents"}}
    values = {name: SAMPLE[letter] for name, letter in slots.items()}
    table = EventTable()
    row = as_row(table, TextReaders(table)[event](write_text(event, kernel, values)))
    for name, value in values.items():
        if name in TEXT_COLUMNS:
            added = "|MMIO" if event == "dma_map_resource" else "|DMA_ATTR_NO_WARN" if "attrs" in values else ""
            assert row[name] == (f"{value}{added}" if name == "flags" else value)
        elif SAMPLE["l"] == value:
            assert getattr(row["sg"], name) == value


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_the_columns_that_are_declared_are_those_that_are_read(kind):
    declared = set(kind.spec.columns)
    if kind is Kind.LOST:
        assert declared == {"cpu", "size", "time"}
        return
    read, lists = set(), False
    for texts in kind.spec.texts.values():
        for text in texts:
            slots = dict(SLOT.findall(text.template))
            lists |= "l" in slots.values()
            read |= slots.keys() & set(TEXT_COLUMNS)
            read |= {"flags"} if text.adds or "attrs" in slots else set()
            read |= {"err"} if "fault" in slots else set()
    assert declared <= {name for name, _ in COLUMNS}
    assert read <= declared
    assert declared - read <= (LISTED if lists else set())
    assert "sg" in declared or not lists


def test_a_text_is_of_the_kernels_from_its_first_to_its_last():
    text = Text("", since="5.17", until="6.12")
    assert [text.is_of(kernel) for kernel in ("4.19", "5.16.9", "5.17", "6.12.107", "6.13")] == [
        False,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("event", "kernel", "values", "sentence"),
    [
        ("lost", "6.12", {}, "no event 'lost' is known"),
        ("cma_release", "5.10", {}, "no text of 'cma_release' is known of kernel 5.10"),
        ("cma_release", "6.12", {"name": "r", "addr": 1}, "cma_release: size must be given"),
        (
            "map",
            "6.12",
            {"addr": 0, "phys": 0, "size": 1 << 70},
            "map: no kernel prints 'IOMMU: iova=0x0 - 0x0 paddr=0x0 size=1180591620717411303424'",
        ),
    ],
)
def test_what_no_kernel_prints_is_not_written(event, kernel, values, sentence):
    with pytest.raises(InvalidArgument) as refused:
        write_text(event, kernel, values)
    assert str(refused.value) == sentence
