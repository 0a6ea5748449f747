"""Logs of emulated IOMMUs: what a line becomes, what is counted, what is refused."""

import gzip

import pytest

from swiommu.answers import verify
from swiommu.errors import InputError
from swiommu.trace import read_trace
from swiommu.trace.emulator import EmulatorLog, Entry, Invalidated, Lookup, Request, Translated, find_emulator_log

NO_LOG = "LOG: not an emulator's log: no line of 1 begins with vtd_, smmu, amdvi_, virtio_iommu_"
NAME = "x86-6.12-strict-qtrace-s101"


def read(folder, text):
    path = folder / "a.emulator"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    log = EmulatorLog(str(path))
    return log, list(log)


def refusal(folder, text):
    with pytest.raises(InputError) as caught:
        read(folder, text)
    return str(caught.value).replace(str(folder / "a.emulator"), "LOG")


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (
            "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x3 addr 0xffffd000 mask 0x4",
            Invalidated(1, 3, 0xFFFFD000, 1 << 16),
        ),
        (
            "vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0xffffe040 slpte 0x7fbd5003 domain 0x3",
            Entry(1, 8, 0xFFFFE040, 0x7FBD5003, 3, hit=True),
        ),
        (
            "vtd_dmar_translate dev 02:1f.03 iova 0xffffe000 -> gpa 0x7fbd5000 mask 0xfff",
            Translated(1, 0x2FB, 0xFFFFE000, 0x7FBD5000, 0xFFF),
        ),
        (
            "4711@1700000000.123456:vtd_dmar_translate dev 00:01.00 iova 0x1000 -> gpa 0x2000 mask 0xfff",
            Translated(1, 8, 0x1000, 0x2000, 0xFFF),
        ),
        (
            "smmuv3_s1_range_inval vmid=0 asid=2 addr=0xffffc000 tg=1 num_pages=0x10 ttl=3 leaf=1",
            Invalidated(1, 2, 0xFFFFC000, 1 << 16, 3, 1),
        ),
        (
            "smmu_iotlb_lookup_hit IOTLB cache HIT asid=2 addr=0x1000 hit=5 miss=1 hit rate=83",
            Lookup(1, 2, 0x1000, hit=True),
        ),
        (
            "smmu_iotlb_lookup_miss IOTLB cache MISS asid=2 addr=0x1000 hit=5 miss=1 hit rate=83",
            Lookup(1, 2, 0x1000, hit=False),
        ),
        (
            "smmuv3_translate_success smmuv3-iommu-memory-region-8-1 sid=0x8 iova=0x1 translated=0x2 perm=0x3 s=1",
            Translated(1, 8, 1, 2, perm=3),
        ),
        (
            "virtio_iommu_unmap domain=2 virt_start=0xffffd000 virt_end=0xffffdfff",
            Request(1, 2, 0xFFFFD000, 0xFFFFDFFF, 0, -1),
        ),
    ],
)
def test_lines(tmp_path, line, record):
    log, records = read(tmp_path, f"{line}\n")
    assert records == [record]
    assert log.account.clean


def test_every_line_is_counted_once(tmp_path):
    good = "vtd_dmar_translate dev 00:01.00 iova 0x1000 -> gpa 0x2000 mask 0xfff"
    lines = [
        "# a header that nobody knows",
        good,
        "",
        good[:40],
        good.replace("0x2000", "0x1" + "0" * 15),
        good.replace("0x2000", "0x1" + "0" * 16),
        "vtd_inv_desc_wait_sw wait invalidate status write addr 0xa3b3c04 data 0x2",
        "smmuv3_cmdq_tlbi_nh_asid asid=2",
        "\x1b[31mvtd_dmar_translate",
        "v" * (1 << 20) + "x",
        "vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0x1 slpte 0x\u0663 domain 0x3",
    ]
    log, records = read(tmp_path, "\n".join(lines))
    assert [record.line for record in records] == [2, 5]
    account = log.account
    assert (account.total_lines, account.header, account.used, account.ignored_total) == (11, 1, 2, 1)
    assert (account.malformed, account.unreadable, account.overlong, account.cut_tail) == (3, 3, 1, 1)
    assert account.examples == [
        (4, "vtd_dmar_translate: cut or of another shape"),
        (6, "vtd_dmar_translate: cut or of another shape"),
        (11, "vtd_iotlb_page_hit: cut or of another shape"),
    ]


def test_numbers_beyond_64_bits(tmp_path):
    log, records = read(tmp_path, "smmuv3_cmdq_tlbi_nh_asid asid=99999999999999999999\n")
    assert records == []
    assert log.account.examples == [(1, "smmuv3_cmdq_tlbi_nh_asid: a number beyond 64 bits")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "LOG: is empty, not an emulator's log"),
        (b"\x7fELF\0\0\0\1", "LOG: is a binary file, not an emulator's log"),
        (
            gzip.compress(b"vtd_inv_desc x\n" * 3000, mtime=0)[:60],
            "LOG: is a truncated gzip file; 568 lines were readable before the cut",
        ),
        (b'{"a": 1}\n', f"{NO_LOG}; it looks like JSON"),
        (
            b"   init-1   [000] .....   4.149337: tracing_mark_write: PHASE x\n",
            f"{NO_LOG}; it looks like an ftrace text",
        ),
    ],
)
def test_refusals(tmp_path, text, sentence):
    assert refusal(tmp_path, text) == sentence


def test_which_log(tmp_path):
    trace = str(tmp_path / "a.trace.gz")
    assert find_emulator_log(trace) is None
    (tmp_path / "a.emulator").mkdir()
    assert find_emulator_log(trace) is None
    (tmp_path / "a.emulator.gz").write_bytes(b"")
    assert find_emulator_log(trace).path == str(tmp_path / "a.emulator.gz")


HOSTILE = {
    "one line": "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x3 addr 0xffffd000 mask 0x4",
    "nothing of use": "vtd_context_cache_reset \n" * 3,
    "another hardware": "smmuv3_s1_range_inval vmid=0 asid=2 addr=0xffffc000 tg=1 num_pages=0x10 ttl=3 leaf=1\n" * 9,
    "steps without a lookup": "smmu_get_pte baseaddr=0x4ace2000 index=0x0, pteaddr=0x4ace2000, pte=0x4aea0003\n" * 9,
    "huge numbers": "vtd_iotlb_page_update IOTLB page update sid 0xffffffffffffffff iova 0xffffffffffffffff "
    "slpte 0xffffffffffffffff domain 0xffffffffffffffff\n" * 9,
    "huge pieces": "smmuv3_s1_range_inval vmid=0 asid=2 addr=0xff000 tg=99999999999 num_pages=0x1 ttl=9 leaf=9\n",
    "no page sizes": "virtio_iommu_get_config page_size_mask=0x0 x\n"
    "virtio_iommu_map domain=2 virt_start=0xfffff000 virt_end=0x0 phys_start=0x0 flags=99\n",
    "only waits": "amdvi_command_exec command buffer head at 0x0 command buffer tail at 0x10\n" * 9,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_log_is_answered(tmp_path, data_dir, name):
    for ending in ("json", "trace.gz"):
        (tmp_path / f"{NAME}.{ending}").write_bytes((data_dir / "traces" / f"{NAME}.{ending}").read_bytes())
    (tmp_path / f"{NAME}.emulator").write_text(HOSTILE[name])
    answer = verify(read_trace(tmp_path / f"{NAME}.trace.gz")).to_json()
    account = answer["emulator_log"]
    assert (
        account["total_lines"]
        == account["used"] + account["malformed"] + sum(account["ignored"].values()) + account["header"]
    )
