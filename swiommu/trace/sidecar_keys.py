"""The keys of a sidecar file, and what each may be. A fact that nothing here reads is declared so, and not checked."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from attrs import frozen

from swiommu.input_file import HexNumber, key

__all__ = ["AreaKeys", "BouncedKeys", "Extents", "FileKeys", "IommuKeys", "RingKeys", "SidecarKeys"]

Extents: TypeAlias = Annotated[tuple[tuple[int, int], ...], "pairs"]

_U64: Final = 1 << 64
_LAST_PFN: Final = (_U64 >> 12) - 1


@frozen
class IommuKeys:
    """Keys of ``iommu``."""

    mode: str | None = key("How devices were translated, such as `strict`, `lazy`, `passthrough` or `direct`.", None)
    kind: Any = key("The hardware.", None, is_read=False)
    address_width_bits: Any = key("Its width.", None, is_read=False)


@frozen
class AreaKeys:
    """Keys of ``cma_area``."""

    base_pfn: HexNumber = key("The first page.", least=0, most=_LAST_PFN)
    total_pages: HexNumber = key("The size.", unit="pages", least=1, most=_LAST_PFN)
    in_use_before_trace_extents_offset_count: Extents | None = key(
        "Pairs of offset and count: what was in use when the trace begins. Without it that is not known.",
        None,
        unit="pages",
    )
    in_use_before_trace_source: Any = key("Where these pairs come from.", None, is_read=False)
    base: Any = key("The first address.", None, is_read=False)
    size_MiB: Any = key("The size in MiB.", None, is_read=False)  # noqa: N815 - as recorders spell it


@frozen
class BouncedKeys:
    """Keys of ``bounce_pool_addresses_seen``."""

    lowest: HexNumber | None = key("The lowest address of the pool that the trace shows.", None, least=0, most=_U64 - 1)
    highest_end: Any = key("The end of the highest one.", None, is_read=False)


@frozen
class FileKeys:
    """Keys of one of ``files``, whose names are those of the recording's files."""

    text_bytes: HexNumber | None = key(
        "Size of the text; a shorter one is told.", None, unit="bytes", least=0, most=_U64
    )
    gz_bytes: Any = key("Size of the compressed file.", None, is_read=False)


@frozen
class RingKeys:
    """Keys of one CPU of ``ring_buffer``, as in its ``per_cpu/cpuN/stats``."""

    entries: HexNumber | None = key("Events in the buffer when it was read.", None, least=0, most=_U64 - 1)
    overrun: HexNumber | None = key("Events that newer ones overwrote.", None, least=0, most=_U64 - 1)
    commit_overrun: Any = key("Events that nested too deep.", None, is_read=False)
    dropped_events: Any = key("Events that found the buffer full.", None, is_read=False)


@frozen(kw_only=True)
class SidecarKeys:
    """What a sidecar may say."""

    name: str = key("The trace's file name without endings.")
    kernel: str = key("The kernel's release, as `uname -r` prints it.")
    arch: str | None = key("The machine, as `uname -m` prints it.", None)
    page_size: HexNumber | None = key(
        "Size of a page, a power of two; 4096 if it is not there.", None, unit="bytes", least=4096, most=65536
    )
    cpus: HexNumber | None = key("Number of CPUs.", None, least=1, most=8192)
    boot_parameters: str | None = key("The kernel's command line; `swiotlb=` tells the size of the bounce pool.", None)
    iommu: IommuKeys | None = key("How devices were translated.", None)
    cma_area: AreaKeys | None = key("The area that DMA allocates from.", None)
    system_ram: list[str] | None = key("The RAM lines of `/proc/iomem`.", None)
    pci_functions: list[str] | None = key("The PCI functions with ids, class, driver and masks, a line each.", None)
    iommu_groups: list[str] | None = key("IOMMU groups, a line each, with lines of reserved regions below.", None)
    dmesg_excerpt: list[str] | None = key("Lines of the kernel log; that of the bounce pool is used.", None)
    bounce_pool_addresses_seen: BouncedKeys | None = key("Where the bounce pool is.", None)
    files: dict[str, FileKeys] | None = key("The recording's files by name.", None)
    ring_buffer: dict[str, RingKeys] | None = key(
        "Entries and losses by CPU; a trace with fewer events lacks some, its beginning most likely.", None
    )
    recorded_on: Any = key("The machine.", None, is_read=False)
    memory: Any = key("Its memory.", None, is_read=False)
    workload: Any = key("What ran.", None, is_read=False)
    workload_id: Any = key("A short name of it.", None, is_read=False)
    seed: Any = key("Its seed.", None, is_read=False)
    kernel_version: Any = key("The version as the kernel prints it.", None, is_read=False)
    kernel_probes: Any = key("Whether probes added events.", None, is_read=False)
    probes_not_possible: Any = key("Probes that this kernel has no place for.", None, is_read=False)
    boot_events_included: Any = key("Whether the trace begins at boot.", None, is_read=False)
    trace_clock: Any = key("The clock of the trace.", None, is_read=False)
    events_of_this_kernel: Any = key("Events that this kernel has.", None, is_read=False)
    cma_before: Any = key("CMA's counters before the run.", None, is_read=False)
    cma_after: Any = key("CMA's counters after the run.", None, is_read=False)
    cmainfo: Any = key("What the kernel's log says of the area.", None, is_read=False)
    figures: Any = key("Figures counted from the trace.", None, is_read=False)
    emulator_log_events: Any = key("Lines of the emulator's log by kind.", None, is_read=False)
    stack_level: Any = key("Which side of a stacked pair this is.", None, is_read=False)
