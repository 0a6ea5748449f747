"""`swiommu explain translate` as a shell runs it."""

import json
import xml.etree.ElementTree as ET

import pytest

BUNDLED = "gart, nested, shared, three, window"


def said(run):
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def test_text_json_and_picture_tell_the_same(swiommu, tmp_path):
    text = swiommu("explain", "translate", "nested", "0x10010", "--svg", "walk.svg")
    document = json.loads(swiommu("explain", "translate", "nested", "0x10010", "--json").stdout)
    assert text.returncode == 0
    assert b"24 refs" in text.stdout
    assert document["refs"] == 24
    assert ET.parse(tmp_path / "walk.svg").getroot().get("aria-label").startswith("camera reads 1 byte at iova 0x10010")


def test_the_second_time_costs_what_caches_did_not_keep(swiommu, tmp_path):
    stack = """
        [memory.ram]
        size = "1 GiB"
        [layer.iommu]
        kind = "paged"
        on = "ram"
        tables = 0x1000
        map = [{ at = 0x1000, to = 0x10_0000, size = "4 KiB" }]
        tlb = { entries = 4 }
    """
    (tmp_path / "s.toml").write_text(stack)
    cold, again = (
        json.loads(swiommu("explain", "translate", "s.toml", "0x1010", "--json", *more).stdout)
        for more in ([], ["--again"])
    )
    assert (cold["refs"], again["refs"]) == (4, 0)
    assert cold["runs"] == again["runs"]
    assert "(cached)" in swiommu("explain", "translate", "s.toml", "0x1010", "--again").stdout.decode()


def test_entries_are_told_by_their_format(swiommu, tmp_path):
    stack = """
        [memory.ram]
        size = "1 GiB"
        [layer.napot]
        kind = "paged"
        format = "riscv-sv48-napot"
        on = "ram"
        walker = "physical"
        map = [{ at = 0x3_0000, to = 0x4_0000, size = "64 KiB" }]
        [layer.vtd]
        kind = "paged"
        format = "vtd-ss-3"
        on = "napot"
        walker = "physical"
        map = [{ at = 0x2_0000, to = 0x3_0000, size = "4 KiB" }]
        [layer.amd]
        kind = "paged"
        format = "amd-v1"
        on = "vtd"
        walker = "physical"
        map = [{ at = 0x1_0000, to = 0x2_0000, size = "4 KiB", prot = "r" }]
    """
    (tmp_path / "s.toml").write_text(stack)
    status, out, err = said(swiommu("explain", "translate", "s.toml", "0x10010"))
    assert (status, err) == (0, "")
    assert out.split("\n\n")[2] == (
        """\
   refs  the way
         amd    iova 0x10010 -> ipa 0x20010
      1    at pa 0x1000: next table at pa 0x2000
      2    at pa 0x2000: next table at pa 0x3000
      3    at pa 0x3080: page of 4 KiB, r
         vtd    ipa 0x20010 -> ipa 0x30010
      4    at pa 0x1000: next table at pa 0x2000
      5    at pa 0x2000: next table at pa 0x3000
      6    at pa 0x3100: page of 4 KiB, rw
         napot  ipa 0x30010 -> pa 0x40010
      7    at pa 0x1000: next table at pa 0x2000
      8    at pa 0x2000: next table at pa 0x3000
      9    at pa 0x3000: next table at pa 0x4000
     10    at pa 0x4180: page of 64 KiB, rw
         ram    pa 0x40010"""
    )


def test_a_fault_is_an_answer(swiommu):
    status, out, err = said(swiommu("explain", "translate", "nested", "0x14000", "--access", "w", "--device", "guest"))
    assert (status, err) == (0, "")
    assert "guest is to blame (permission fault): it does not allow writing at iova 0x14000." in out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "status", "last"),
    [
        (
            ["shared", "0x1000"],
            2,
            "Error: There are several ways in; choose one with --device: camera, codec, dma.",
        ),
        (
            ["nested", "0", "--device", "\x1b[31m"],
            2,
            "Error: Invalid value for --device: '\\x1b[31m' is not in this stack; there are ram, host, guest, camera.",
        ),
        (["nested", "zero"], 2, "Error: Invalid value for 'ADDRESS': 'zero' is no address: a number such as 0x10000."),
        (["nested", "9" * 5000], 2, "Error: Invalid value for 'ADDRESS': an address is from 0 to 2**64 - 1."),
        (["nested", "0x1" + "0" * 16], 2, "Error: Invalid value for 'ADDRESS': an address is from 0 to 2**64 - 1."),
        (["nested", "0", "--size", "0"], 2, "Error: Invalid value for '--size': an access is of 1 to 1048576 bytes."),
        (
            ["nested", "0", "--size", "1048577"],
            2,
            "Error: Invalid value for '--size': an access is of 1 to 1048576 bytes.",
        ),
        (["nested", "0", "--svg", "no/where.svg"], 2, "Error: Invalid value for --svg: there is no directory no"),
        (
            ["bad.toml", "0"],
            3,
            "swiommu: bad.toml:3: memory.ram.base is 'low', not a number of bytes, or a text such as \"64 MiB\"",
        ),
        (
            ["none.toml", "0"],
            3,
            f"swiommu: none.toml: no such file, and no bundled stack of that name (there are {BUNDLED})",
        ),
    ],
)
def test_refused(swiommu, tmp_path, arguments, status, last):
    (tmp_path / "bad.toml").write_text("[memory.ram]\nsize = 1\nbase = 'low'\n")
    found, out, err = said(swiommu("explain", "translate", *arguments))
    assert (found, out, err.splitlines()[-1]) == (status, "", last)


def test_a_picture_that_can_not_be_written(swiommu, tmp_path):
    (tmp_path / "folder").mkdir()
    status, _, err = said(swiommu("explain", "translate", "nested", "0x10000", "--svg", "/proc/walk.svg"))
    assert (status, err) == (3, "swiommu: /proc/walk.svg can't be written: No such file or directory\n")


def test_the_largest_access_is_told_while_somebody_waits(swiommu):
    run = swiommu("explain", "translate", "window", "0", "--size", str(1 << 20), timeout=30)
    assert run.returncode == 0
