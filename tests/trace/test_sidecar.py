"""Sidecars: what is read, what is refused, whole texts."""

import gzip
import json
import shutil
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import InputError
from swiommu.profile import Profile, profile_of
from swiommu.trace import (
    BouncePool,
    CmaArea,
    DeviceFacts,
    GroupFacts,
    ReservedRegion,
    Sidecar,
    bundled_path,
    read_sidecar,
    read_trace,
)

MINIMAL = {"name": "t", "kernel": "6.12.107+deb13-arm64"}
RELEASE = "           v4l-185     [000] .....     8.1: cma_release: name=r pfn=0x1 page=0 count=1\n"


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "t.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data, indent=1))
        return read_sidecar(path)

    return read


@pytest.fixture
def refusal(read, tmp_path):
    def refusal(data):
        with pytest.raises(InputError) as caught:
            read(data)
        text = str(caught.value)
        assert text.startswith(f"{tmp_path / 't.json'}:")
        return text.removeprefix(f"{tmp_path / 't.json'}")

    return refusal


def bundled_sidecar(name):
    return read_sidecar(bundled_path(name).with_name(f"{name}.json"))


def test_the_camera_recording():
    sidecar = bundled_sidecar("arm64-6.12-cam-cma64M-s81")
    assert (sidecar.version, sidecar.profile.name, sidecar.arch) == ((6, 12), "6.12", "aarch64")
    assert (sidecar.iommu_mode, sidecar.cpus) == ("direct", 1)
    assert sidecar.cma_area == CmaArea(0xB9A00, 16384, ((0, 192),))
    assert sidecar.system_ram == ("40000000-bfffffff : System RAM",)
    assert sidecar.groups == ()
    assert sidecar.bounce_pool == BouncePool(2 << 20, "log")


def test_the_iommu_recording():
    sidecar = bundled_sidecar("arm64-6.12-smmu-camnvme-cma128M-s89")
    assert sidecar.cma_area.start_extents == ((0, 196), (256, 512))
    nvme = sidecar.devices["0000:00:01.0"]
    assert nvme == DeviceFacts("0000:00:01.0", "nvme", 64, 64, 0x010802, (0x1B36, 0x0010))
    assert (nvme.dma_mask, nvme.coherent_mask, nvme.is_iommu) == ((1 << 64) - 1, (1 << 64) - 1, False)
    assert {name: each.min_align_mask for name, each in sidecar.devices.items() if each.min_align_mask} == {
        "0000:00:01.0": 0xFFF
    }
    msi = (ReservedRegion(0x8000000, 0x80FFFFF, "msi"),)
    assert sidecar.groups[1] == GroupFacts(1, "DMA", ("0000:00:01.0",), msi)
    assert sidecar.group_of == {"0000:00:03.0": 0, "0000:00:01.0": 1, "0000:00:02.0": 2}
    assert sidecar.bounce_pool == BouncePool(2 << 20, "log")


def test_the_least_that_a_sidecar_says(read, tmp_path):
    assert read(MINIMAL) == Sidecar(str(tmp_path / "t.json"), "t", "6.12.107+deb13-arm64", (6, 12))


@pytest.mark.parametrize(
    ("kernel", "profile"), [("6.14.9", "6.14"), ("6.15.0-rc1", "6.15"), ("7.3.4+deb13-amd64", "7.3"), ("10.1", "10.1")]
)
def test_the_profile_by_version(read, kernel, profile):
    assert read(MINIMAL | {"kernel": kernel}).profile is profile_of(profile)


def test_an_area_whose_start_is_unknown_is_not_an_empty_one(read):
    area = {"base_pfn": "0x1000", "total_pages": 64}
    assert read(MINIMAL | {"cma_area": area}).cma_area == CmaArea(0x1000, 64, None)
    area["in_use_before_trace_extents_offset_count"] = []
    assert read(MINIMAL | {"cma_area": area}).cma_area == CmaArea(0x1000, 64, ())
    assert read(MINIMAL | {"cma_area": None}).cma_area is None


@pytest.mark.parametrize(
    ("facts", "pool"),
    [
        ({"boot_parameters": "quiet swiotlb=2048,force"}, BouncePool(4 << 20, "boot parameter")),
        ({"boot_parameters": "swiotlb=100"}, BouncePool(256 << 10, "boot parameter")),
        ({"boot_parameters": "swiotlb=0x64,2", "cpus": 8}, BouncePool(512 << 10, "boot parameter", None, 2)),
        ({"boot_parameters": "swiotlb=3000"}, BouncePool(8 << 20, "boot parameter")),
        ({"boot_parameters": "swiotlb=3000", "kernel": "5.10.0"}, BouncePool(6 << 20, "boot parameter")),
        ({"boot_parameters": "swiotlb=force"}, BouncePool(64 << 20, "boot parameter")),
        ({"boot_parameters": "swiotlb=2048,noforce"}, None),
        ({"boot_parameters": "swiotlb=force,512"}, None),
        ({"boot_parameters": "xswiotlb=512"}, None),
        (
            {"bounce_pool_addresses_seen": {"lowest": "0x1000"}},
            BouncePool(64 << 20, "default", 0x1000),
        ),
    ],
)
def test_the_bounce_pool(read, facts, pool):
    assert read(MINIMAL | facts).bounce_pool == pool


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            {"boot_parameters": f"swiotlb={1 << 28}"},
            "boot_parameters has a bounce pool of 549755813888 bytes, not of 1 to 274877906944",
        ),
        (
            {"boot_parameters": "swiotlb=0", "kernel": "5.10.0"},
            "boot_parameters has a bounce pool of 0 bytes, not of 1 to 274877906944",
        ),
        (
            {"dmesg_excerpt": ["", "software IO TLB: mapped [mem 0x2000-0x1000]"]},
            "dmesg_excerpt[1] has a bounce pool of -4096 bytes, not of 1 to 274877906944",
        ),
    ],
)
def test_a_bounce_pool_that_no_machine_has(read, facts, sentence):
    with pytest.raises(InputError) as caught:
        read(MINIMAL | facts)
    assert str(caught.value).partition(": ")[2] == sentence


def test_iommus_among_the_functions(read):
    lines = [
        "0000:00:01.0 0x1022 0x0008 class=0x080600 driver= dma_mask_bits=32 consistent=32",
        "0000:00:02.0 0x1af4 0x1057 class=0x00ff00 driver=virtio-pci dma_mask_bits=64 consistent=64",
        "0000:00:03.0 0x1af4 0x1041 class=0x020000 driver=virtio-pci dma_mask_bits=64 consistent=32",
    ]
    devices = read(MINIMAL | {"pci_functions": lines}).devices
    assert [device.is_iommu for device in devices.values()] == [True, True, False]
    assert devices["0000:00:03.0"].coherent_mask == 0xFFFFFFFF


AREA = {"base_pfn": "0x1000", "total_pages": 64}
EXTENTS = "in_use_before_trace_extents_offset_count"
FUNCTION = "not a PCI function with its ids, class, driver and masks of up to 64 bits"


APART = "not an extent apart from the others within 64 pages"
NUMBER = 'not a whole number, or a text such as "0xb9a00"'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", ":1: is not JSON: Expecting value (column 1)"),
        ("{", ":1: is not JSON: Expecting property name enclosed in double quotes (column 2)"),
        ("[" * 100_000, ": nests deeper than 64 levels, not a recording's sidecar"),
        ("[]", ": is a list, not an object with keys"),
        ({}, ": is not a recording's sidecar: it has neither 'name' nor 'kernel'"),
        ({"name": "t"}, ": kernel is missing"),
        ({"name": 1, "kernel": "6.1"}, ":2: name is 1, not a text"),
        (MINIMAL | {"kernel": "next"}, ":3: kernel is 'next', not a version such as 6.12.107"),
        (MINIMAL | {"arch": 1}, ":4: arch is 1, not a text"),
        (MINIMAL | {"page_size": 5000}, ":4: page_size is 5000, not a power of two"),
        (MINIMAL | {"page_size": 0}, ":4: page_size is 0, not a number of bytes from 4096 to 65536"),
        (MINIMAL | {"cpus": True}, ':4: cpus is True, not a whole number, or a text such as "0xb9a00"'),
        (MINIMAL | {"cpus": 1.5}, ':4: cpus is 1.5, not a whole number, or a text such as "0xb9a00"'),
        (MINIMAL | {"cpus": 8193}, ":4: cpus is 8193, not a whole number from 1 to 8192"),
        (MINIMAL | {"cma_area": 3}, ":4: cma_area is 3, not a table"),
        (MINIMAL | {"cma_area": {}}, ":4: cma_area.base_pfn is missing"),
        (
            MINIMAL | {"cma_area": AREA | {"base_pfn": "0xfffffffffffff"}},
            ":4: cma_area ends at page 0x1000000000003f, beyond 2**64 bytes",
        ),
        (
            MINIMAL | {"page_size": 65536, "cma_area": AREA | {"base_pfn": "0xffffffffffff"}},
            ":5: cma_area ends at page 0x100000000003f, beyond 2**64 bytes",
        ),
        (
            MINIMAL | {"cma_area": AREA | {"base_pfn": "b9a00"}},
            ":5: cma_area.base_pfn is 'b9a00', not a whole number, or a text such as \"0xb9a00\"",
        ),
        (
            MINIMAL | {"cma_area": AREA | {"total_pages": 0}},
            ":6: cma_area.total_pages is 0, not a number of pages from 1 to 2**52 - 1",
        ),
        (
            MINIMAL | {"cma_area": AREA | {EXTENTS: [1]}},
            f":7: cma_area.{EXTENTS} is no list of pairs of offset and count",
        ),
        (
            MINIMAL | {"cma_area": AREA | {EXTENTS: [[0, "1"]]}},
            f":7: cma_area.{EXTENTS} holds '1', not a whole number",
        ),
        (MINIMAL | {"cma_area": AREA | {EXTENTS: [[0, 0]]}}, f":7: cma_area.{EXTENTS} holds [0, 0], {APART}"),
        (MINIMAL | {"cma_area": AREA | {EXTENTS: [[-1, 9]]}}, f":7: cma_area.{EXTENTS} holds [-1, 9], {APART}"),
        (MINIMAL | {"cma_area": AREA | {EXTENTS: [[8, 8], [0, 9]]}}, f":7: cma_area.{EXTENTS} holds [8, 8], {APART}"),
        (MINIMAL | {"cma_area": AREA | {EXTENTS: [[60, 5]]}}, f":7: cma_area.{EXTENTS} holds [60, 5], {APART}"),
        (MINIMAL | {"system_ram": "x"}, ":4: system_ram is 'x', not a list of texts"),
        (MINIMAL | {"system_ram": ["0-fff : A", 1]}, ":4: system_ram has 1 as item 1, not a text"),
        (MINIMAL | {"system_ram": ["0-fff : A", "x"]}, ":6: system_ram[1]: expected 'first-last : name', found 'x'"),
        (
            MINIMAL | {"system_ram": ["0-fff : A", "800-1fff : B"]},
            ":6: system_ram[1]: '00000800-00001fff : B' crosses the border of '00000000-00000fff : A'",
        ),
        (
            MINIMAL | {"system_ram": ["0-0 : A"]},
            ":4: system_ram: every address is zero: only root can read the addresses of /proc/iomem",
        ),
        (MINIMAL | {"system_ram": ["1000-9fff : ACPI"]}, ":4: system_ram names no page of System RAM"),
        (MINIMAL | {"system_ram": ["1000-17ff : System RAM"]}, ":4: system_ram names no page of System RAM"),
        (MINIMAL | {"pci_functions": ["x"]}, f":5: pci_functions[0] is 'x', {FUNCTION}"),
        (
            MINIMAL | {"pci_functions": ["d 0x1 0x2 class=0x3 driver= dma_mask_bits=65 consistent=32"]},
            f":5: pci_functions[0] is 'd 0x1 0x2 class=0x3 driver= dma_mask_bits=65 consistent=32', {FUNCTION}",
        ),
        (
            MINIMAL | {"iommu_groups": ["  resv 0x0 0x1 msi"]},
            ":5: iommu_groups[0] is '  resv 0x0 0x1 msi', not a group line or a reserved region of the group above",
        ),
        (
            MINIMAL | {"iommu_groups": ["group 0 type=DMA devices=a ", "  resv 0x2 0x1 msi"]},
            ":6: iommu_groups[1] is '  resv 0x2 0x1 msi', a region that ends before its start",
        ),
        (MINIMAL | {"cma_aera": AREA}, ":4: has no key 'cma_aera'; did you mean 'cma_area'?"),
        (MINIMAL | {"pagesize": 65536}, ":4: has no key 'pagesize'; did you mean 'page_size'?"),
        (MINIMAL | {"Boot-Parameters": ""}, ":4: has no key 'Boot-Parameters'; did you mean 'boot_parameters'?"),
        (MINIMAL | {"iommu": {"mod": "lazy"}}, ":5: iommu has no key 'mod'; did you mean 'mode'?"),
        (
            MINIMAL | {"cma_area": AREA | {"total_page": 1}},
            ":7: cma_area has no key 'total_page'; did you mean 'total_pages'?",
        ),
        (MINIMAL | {"files": {"t.trace": {"text_bytes": "all"}}}, f":6: files.'t.trace'.text_bytes is 'all', {NUMBER}"),
        (MINIMAL | {"ring_buffer": {"cpu0": {"entries": "all"}}}, f":6: ring_buffer.cpu0.entries is 'all', {NUMBER}"),
    ],
)
def test_refused_sidecars(refusal, data, reason):
    assert refusal(data) == reason


def test_facts_that_are_not_known_pass_and_are_named(tmp_path):
    (tmp_path / "t.trace").write_text(RELEASE)
    sidecar = tmp_path / "t.json"
    sidecar.write_text(json.dumps(MINIMAL | {"hz": 250, "system_map": "none", "recorded_on": ["a", "board"]}))
    trace = read_trace(tmp_path / "t.trace")
    assert trace.sidecar.unknown_keys == ("hz", "system_map")
    assert trace.notes == ["the sidecar holds keys that are not known and not used: 'hz', 'system_map'"]


@pytest.mark.parametrize(
    ("rings", "recorded"),
    [
        ({"cpu0": {"entries": 1, "overrun": 0}}, None),
        ({"cpu0": {"entries": 1, "overrun": 6}, "cpu1": {"entries": 2}}, 9),
        ({"cpu0": {"entries": 3}}, 3),
        ({"cpu0": {"overrun": 3}}, None),
        ({}, None),
    ],
)
def test_fewer_events_than_the_ring_buffers_held_are_told(rings, recorded, tmp_path):
    (tmp_path / "t.trace").write_text(RELEASE)
    (tmp_path / "t.json").write_text(json.dumps(MINIMAL | {"ring_buffer": rings}))
    trace = read_trace(tmp_path / "t.trace")
    told = recorded is not None
    assert trace.notes == [f"the sidecar tells of {recorded} events, 1 were found"] * told
    assert trace.incomplete == (f"{recorded} events were recorded, 1 are in the file" if told else "")


def test_the_size_of_the_text_holds_for_the_file_without_its_compression_too(tmp_path):
    (tmp_path / "t.trace").write_text(RELEASE)
    facts = MINIMAL | {"files": {"t.trace.gz": {"text_bytes": len(RELEASE) + 1}}}
    (tmp_path / "t.json").write_text(json.dumps(facts))
    size = len(RELEASE)
    assert read_trace(tmp_path / "t.trace").incomplete == (
        f"the text had {size + 1} bytes when it was recorded, {size} are in the file"
    )


def test_a_thousand_equal_lines_of_ram_take_no_time(read):
    begin = time.process_time()
    lines = ["00000000-00000fff : System RAM"] * 20_000
    assert len(read(MINIMAL | {"system_ram": lines}).system_ram) == 20_000
    nested = [f"{at:08x}-{0x0FFF_FFFF - at:08x} : System RAM" for at in range(20_000)]
    assert len(read(MINIMAL | {"system_ram": nested}).system_ram) == 20_000
    assert time.process_time() - begin < 5


def test_the_sidecar_of_another_trace_is_refused(tmp_path):
    (tmp_path / "mine.trace").write_text(RELEASE)
    sidecar = tmp_path / "mine.json"
    sidecar.write_text(json.dumps(MINIMAL))
    with pytest.raises(InputError) as caught:
        read_trace(tmp_path / "mine.trace")
    assert str(caught.value) == (
        f"{sidecar}: the sidecar is of 't', not of 'mine.trace' beside it: rename or remove it"
    )
    sidecar.write_text(json.dumps(MINIMAL | {"name": "mine"}))
    assert read_trace(tmp_path / "mine.trace").sidecar.name == "mine"
    sidecar.unlink()
    assert read_trace(tmp_path / "mine.trace").sidecar is None


def test_a_sidecar_that_is_a_directory_is_none(tmp_path):
    (tmp_path / "t.trace").write_text(RELEASE)
    (tmp_path / "t.json").mkdir()
    assert read_trace(tmp_path / "t.trace").sidecar is None


def test_a_trace_called_json_is_not_its_own_sidecar(tmp_path):
    (tmp_path / "t.json").write_text(RELEASE)
    assert read_trace(tmp_path / "t.json").sidecar is None


def test_a_cut_plain_text_is_noticed_by_the_sidecar_and_the_header(tmp_path):
    name = "arm64-6.12-cam-cma64M-s81"
    for ending in (".trace.gz", ".json"):
        shutil.copy(bundled_path(name).with_name(name + ending), tmp_path)
    trace = tmp_path / f"{name}.trace.gz"
    text = gzip.decompress(trace.read_bytes())
    trace.write_bytes(gzip.compress(text[:-1000]))
    notes = read_trace(trace).notes
    assert notes[0].startswith("the header promises 4,029 events, 4,0")
    assert notes[1] == f"the sidecar says {len(text):,} bytes of text, the trace has {len(text) - 1000:,}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
TOP = ["arch", "page_size", "cpus", "memory", "iommu", "cma_area", "pci_functions", "iommu_groups", "system_ram"]
REST = ["bounce_pool_addresses_seen", "dmesg_excerpt", "boot_parameters", "seed", "figures", "files", "kernel", "name"]
KEYS = st.sampled_from([*TOP, *REST])


@given(st.dictionaries(KEYS, JSON), st.sampled_from(["cma_area", "iommu", "figures", "files"]), JSON)
def test_any_json_is_read_or_refused(tmp_path_factory, changes, key, inner):
    path = tmp_path_factory.getbasetemp() / "any.json"
    nested = dict.fromkeys(("base_pfn", "total_pages", EXTENTS, "events", "kind", "any.trace"), inner)
    path.write_text(json.dumps(MINIMAL | {key: nested} | changes))
    profile = error = None
    try:
        profile = read_sidecar(path, trace="any.trace").profile
    except InputError as refusal:
        error = str(refusal)
    assert isinstance(profile, Profile) or "\n" not in error
