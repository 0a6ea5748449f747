"""A.2: what the types of domains are called, and what each takes and answers."""

import pytest

from swiommu.address import Access
from swiommu.errors import AlreadyThere, DeviceFault, InvalidArgument, NoMemory, NotFound, NotSupported
from swiommu.iommu.groups import Cookie, DomainType, Hardware, Hwpt, free_domain, iova_to_phys, map_range, unmap_range

TABLE = [
    ("BLOCKED", 0x0, "Blocked", "blocked", False),
    ("IDENTITY", 0x4, "Passthrough", "identity", False),
    ("UNMANAGED", 0x1, "Unmanaged", "unmanaged", True),
    ("DMA", 0x3, "Translated", "DMA", True),
    ("DMA_FQ", 0xB, "Translated", "DMA-FQ", True),
    ("SVA", 0x10, "Unknown", "unknown", False),
    ("PLATFORM", 0x20, "Platform", "unknown", False),
    ("NESTED", 0x40, "Unknown", "unknown", False),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"A.2-{row[0]}")
def test_value_names_and_whether_it_can_be_mapped_into(row):
    kind = DomainType[row[0]]
    assert (kind.name, kind.value, kind.log_name, kind.sysfs_word, kind.paging) == row


def test_there_are_no_other_types():
    assert len(DomainType) == len(TABLE)
    assert [kind.name for kind in DomainType if kind.dma_api] == ["DMA", "DMA_FQ"]


@pytest.mark.parametrize("kind", ["UNMANAGED", "DMA", "DMA_FQ"], ids=lambda kind: f"A.2-{kind}-maps")
def test_paging_domains_map_and_walk(machine, kind):
    domain = machine().hardware.alloc(DomainType[kind])
    map_range(domain, 0x8000, 0x1234_5000, 0x2000, 3)
    assert iova_to_phys(domain, 0x9010) == 0x1234_6010
    assert unmap_range(domain, 0x8000, 0x2000) == 0x2000
    assert iova_to_phys(domain, 0x9010) == 0
    assert (domain.kernel.geometry.aperture_end, domain.kernel.geometry.force_aperture) == ((1 << 48) - 1, True)


@pytest.mark.parametrize("kind", ["BLOCKED", "IDENTITY"], ids=lambda kind: f"A.2-{kind}-takes-no-mapping")
def test_fixed_domains_take_no_mapping(machine, refused, kind):
    domain = machine().hardware.alloc(DomainType[kind])
    text = refused(InvalidArgument, map_range, domain, 0x8000, 0x1000, 0x1000, 3)
    assert text == f"IommuDomain({domain.kernel.type.log_name} of 'smmu') takes no mappings"
    assert unmap_range(domain, 0x8000, 0x1000) == 0
    assert domain.kernel.pgsize_bitmap == 0
    assert iova_to_phys(domain, 0x8123) == (0x8123 if kind == "IDENTITY" else 0)


@pytest.mark.parametrize("kind", ["BLOCKED", "IDENTITY"])
def test_fixed_domains_as_domains(machine, refused, kind):
    host = machine()
    own = host.hardware.alloc(DomainType[kind])
    word = {"BLOCKED": "a blocked", "IDENTITY": "an identity"}[kind]
    assert refused(InvalidArgument, own.map, host.bus(0x1000), host.at(0x2000), 0x1000) == (
        f"0x1000 bytes at 0x1000 can't be mapped to 0x2000: {word} domain takes no mappings"
    )
    assert refused(NotSupported, own.alloc, 4096) == (
        f"4096 bytes can't be allocated in {word} domain: it gives out no addresses"
    )
    assert own.unmap(host.bus(0x1000), 0x1000) == 0
    twin = host.hardware.alloc(DomainType.UNMANAGED)
    mapping = machine().hardware.alloc(DomainType.DMA).alloc(4096)
    with pytest.raises(NotFound):
        own.release(mapping)
    own.check()
    twin.check()
    if kind == "IDENTITY":
        assert own.translate(host.bus(0x1234), 8, Access.WRITE)[0].output == 0x1234
        with pytest.raises(DeviceFault):
            own.translate(host.bus(1 << 41), 1, Access.READ)
    else:
        with pytest.raises(DeviceFault):
            own.translate(host.bus(0x1234), 8, Access.WRITE)


def test_a_bound_piece_has_no_place_in_a_fixed_domain(machine, refused):
    from swiommu.address import PhysRange

    host = machine()
    own = host.hardware.identity_domain
    assert refused(NotSupported, own.bind, [PhysRange(host.at(0x1000), 0x10)]) == (
        "[0x1000, 0x1010) can't be bound in an identity domain"
    )


def test_a_second_kind_of_cookie_is_refused(machine, refused):
    domain = machine().hardware.alloc(DomainType.UNMANAGED)
    domain.kernel.take_cookie(Cookie.DMA_MSI)
    assert refused(AlreadyThere, domain.kernel.take_cookie, Cookie.DMA_IOVA) == (
        "IommuDomain(Unmanaged of 'smmu') has a cookie of kind DMA_MSI already"
    )
    assert AlreadyThere.errno == 17
    assert domain.kernel.cookie is Cookie.DMA_MSI


# -- A.2, allocation


@pytest.mark.parametrize(
    ("spec", "options", "kind", "flags", "error", "text"),
    [
        ("neither-op-EOPNOTSUPP", {"paging": False}, 1, 0, NotSupported, "flags 0x0"),
        ("flags-EOPNOTSUPP", {"hwpt": Hwpt.NONE}, 1, 2, NotSupported, "flags 0x2"),
        ("no-identity-EOPNOTSUPP", {"identity": False}, 4, 0, NotSupported, "no passthrough domain"),
        ("no-blocked-EOPNOTSUPP", {"blocked": False}, 0, 0, NotSupported, "no blocked domain"),
        ("nested-EINVAL", {}, 0x40, 0, InvalidArgument, "0x40 is not made by itself"),
    ],
    ids=lambda value: f"A.2-{value}" if isinstance(value, str) and "-E" in value else "",
)
def test_what_an_iommu_does_not_make(machine, refused, spec, options, kind, flags, error, text):
    hardware = machine(**options).hardware
    assert text in refused(error, hardware.alloc, DomainType(kind), Hwpt(flags))


def test_no_frame_for_the_first_table(machine):
    host = machine(pages=1)
    host.hardware.alloc(DomainType.UNMANAGED)
    with pytest.raises(NoMemory):
        host.hardware.alloc(DomainType.UNMANAGED)


def test_asked_for_what_there_is(machine):
    hardware = machine(hwpt=Hwpt.DIRTY_TRACKING | Hwpt.PASID).hardware
    assert hardware.alloc(DomainType.UNMANAGED, Hwpt.DIRTY_TRACKING).kernel.type is DomainType.UNMANAGED


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("profile", "'other' is no version of a kernel: one is needed such as 6.12"),
        ("grouping", "no grouping 'other': there are pci, device, iommu"),
    ],
    ids=["profile", "grouping"],
)
def test_words_of_hardware(machine, field, sentence):
    with pytest.raises(InvalidArgument) as caught:
        machine(**{field: "other"})
    assert str(caught.value) == sentence
    assert issubclass(Hardware, object)


def test_freeing(machine):
    host = machine()
    frames = host.hardware.frames
    before = frames.free_count
    domain = host.hardware.alloc(DomainType.UNMANAGED)
    map_range(domain, 0x8000, 0x1000, 0x1000, 3)
    assert frames.free_count < before
    free_domain(domain)
    assert frames.free_count == before
    free_domain(host.hardware.identity_domain)
    assert host.hardware.identity_domain.destroyed is False
