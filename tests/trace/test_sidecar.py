"""Sidecars: what is read, what is refused, whole texts."""

import gzip
import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import InputError
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
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return read_sidecar(path)

    return read


@pytest.fixture
def refusal(read, tmp_path):
    def refusal(data):
        with pytest.raises(InputError) as caught:
            read(data)
        text = str(caught.value)
        assert text.startswith(f"{tmp_path / 't.json'}: ")
        return text.removeprefix(f"{tmp_path / 't.json'}: ")

    return refusal


def bundled_sidecar(name):
    return read_sidecar(bundled_path(name).with_name(f"{name}.json"))


def test_the_camera_recording():
    sidecar = bundled_sidecar("arm64-6.12-cam-cma64M-s81")
    assert (sidecar.version, sidecar.profile, sidecar.arch) == ((6, 12), "6.12", "aarch64")
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
    ("kernel", "profile"), [("6.14.9", "6.12"), ("6.15.0-rc1", "7.3"), ("7.3.4+deb13-amd64", "7.3"), ("10.1", "7.3")]
)
def test_the_profile_by_version(read, kernel, profile):
    assert read(MINIMAL | {"kernel": kernel}).profile == profile


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
        ({"boot_parameters": "swiotlb=force,512"}, BouncePool(1 << 20, "boot parameter")),
        ({"boot_parameters": "xswiotlb=512"}, None),
        (
            {"bounce_pool_addresses_seen": {"lowest": "0x1000"}},
            BouncePool(64 << 20, "default", 0x1000),
        ),
    ],
)
def test_the_bounce_pool(read, facts, pool):
    assert read(MINIMAL | facts).bounce_pool == pool


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
FUNCTION = "a PCI function with its ids, class, driver and masks of up to 64 bits"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "is not JSON (Expecting value)"),
        ("{", "is not JSON (Expecting property name enclosed in double quotes)"),
        (
            "[" * 100_000,
            "is not JSON (maximum recursion depth exceeded while decoding a JSON array from a unicode string)",
        ),
        ("[]", "is not a recording's sidecar: the texts 'name' and 'kernel' are missing"),
        ({"name": "t"}, "is not a recording's sidecar: the texts 'name' and 'kernel' are missing"),
        ({"name": 1, "kernel": "6.1"}, "is not a recording's sidecar: the texts 'name' and 'kernel' are missing"),
        (MINIMAL | {"kernel": "next"}, "kernel is 'next', not a version such as 6.12.107"),
        (MINIMAL | {"arch": 1}, "arch is 1, not a text"),
        (MINIMAL | {"page_size": 5000}, "page_size is 5000, not a power of two"),
        (MINIMAL | {"page_size": 0}, "page_size is 0, not a whole number from 4096 to 65536"),
        (MINIMAL | {"cpus": True}, "cpus is True, not a whole number from 1 to 1048576"),
        (MINIMAL | {"cpus": 1.5}, "cpus is 1.5, not a whole number from 1 to 1048576"),
        (
            MINIMAL | {"cma_area": {}},
            "cma_area is {}, not an area with base_pfn and total_pages in the address space",
        ),
        (
            MINIMAL | {"cma_area": AREA | {"base_pfn": "0xfffffffffffff"}},
            (
                "cma_area is {'base_pfn': '0xfffffffffffff', 'total_pages': 64}, "
                "not an area with base_pfn and total_pages in the address space"
            ),
        ),
        (
            MINIMAL | {"cma_area": AREA | {"base_pfn": "b9a00"}},
            "cma_area.base_pfn is 'b9a00', not a whole number from 0 to 4503599627370495",
        ),
        (
            MINIMAL | {"cma_area": AREA | {"total_pages": 0}},
            "cma_area.total_pages is 0, not a whole number from 1 to 4503599627370495",
        ),
        (
            MINIMAL | {"cma_area": AREA | {EXTENTS: [1]}},
            f"cma_area.{EXTENTS} is [1], not a list of pairs of offset and count",
        ),
        (
            MINIMAL | {"cma_area": AREA | {EXTENTS: [[0, 0]]}},
            f"cma_area.{EXTENTS} is 0, not a whole number from 1 to 64",
        ),
        (
            MINIMAL | {"cma_area": AREA | {EXTENTS: [[8, 8], [0, 9]]}},
            f"cma_area.{EXTENTS} is [[8, 8], [0, 9]], not a list of extents apart from each other within 64 pages",
        ),
        (
            MINIMAL | {"cma_area": AREA | {EXTENTS: [[60, 5]]}},
            f"cma_area.{EXTENTS} is [[60, 5]], not a list of extents apart from each other within 64 pages",
        ),
        (MINIMAL | {"system_ram": "x"}, "system_ram is 'x', not a list of texts"),
        (MINIMAL | {"pci_functions": ["x"]}, f"pci_functions is 'x', not {FUNCTION}"),
        (
            MINIMAL | {"pci_functions": ["d 0x1 0x2 class=0x3 driver= dma_mask_bits=65 consistent=32"]},
            f"pci_functions is 'd 0x1 0x2 class=0x3 driver= dma_mask_bits=65 consistent=32', not {FUNCTION}",
        ),
        (
            MINIMAL | {"iommu_groups": ["  resv 0x0 0x1 msi"]},
            "iommu_groups is '  resv 0x0 0x1 msi', not a group line or a reserved region of the group above",
        ),
        (
            MINIMAL | {"iommu_groups": ["group 0 type=DMA devices=a ", "  resv 0x2 0x1 msi"]},
            "iommu_groups is '  resv 0x2 0x1 msi', not a region that ends after its start",
        ),
    ],
)
def test_refused_sidecars(refusal, data, reason):
    assert refusal(data) == reason


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
    assert profile in {"6.12", "7.3"} or "\n" not in error
