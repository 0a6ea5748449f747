"""Recordings that never were: lines as kernels print them, that fit together, and then do not.

`written` lets a small machine run: cameras allocate from an area, disks map pages and lists, directly, through a bounce
pool or behind an IOMMU whose driver prints its probes, a virtual machine's memory is mapped. Its lines are read without
a complaint. With ``mischief`` some of its steps contradict others: ends without begins, a frame with two owners, an
area that moves, parts released, ranges mapped twice. `cut_out` takes a piece of a real recording. `damaged` then cuts,
doubles, drops, shuffles and overwrites.
"""

from __future__ import annotations

import gzip
import itertools
import json
from functools import cache
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
PAGE = 4096
CAMERA_PAGES = (1, 15, 22, 29, 57, 75, 113, 150, 225, 300, 450, 507, 900, 1013, 4050)
ERRNOS = (-12, -16, -4)
EDGES = (
    0,
    1,
    2,
    511,
    4095,
    4096,
    4097,
    (1 << 22) + 1,
    1 << 31,
    1 << 32,
    1 << 47,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
NUMBERS = (b"0", b"-1", b"1", b"ffffffffffffffff", b"18446744073709551615", b"18446744073709551616", b"0x", b"9" * 40)
NUMBERS += (b"4096", b"7f", b"2147483648", b"1000000")
BYTES = b" \t{}=,:[]()-/<>x0123456789abcdefABCDEF\x00\x1b\xff."
LINES = [line for line in (DATA / "event-lines.txt").read_bytes().splitlines() if line and not line.startswith(b"#")]
# Small ones, one or two of each kind of machine, some with the log of an emulated IOMMU.
RECORDINGS = (
    "arm64-6.12-cam-cma64M-s81",
    "arm64-6.12-camdio-cma192M-s119",
    "arm64-6.12-campress-cma192M-s87",
    "arm64-6.12-direct-cma-mixed-s71",
    "arm64-6.12-smmu-camnvme-cma128M-s89",
    "arm64-6.12-smmu-lazy-mixed-s73",
    "arm64-6.12-smmu-qtrace-s103",
    "arm64-7.3-cam-cma96M-s97",
    "x86-6.12-amd-qtrace-s107",
    "x86-6.12-lazy-qtrace-s109",
    "x86-6.12-stacked-vfio-s1",
    "x86-6.12-strict-hotplug-iova-s33",
    "x86-6.12-strict-qtrace-s101",
    "x86-6.12-swiotlb-tiny1M-nvme-s65",
    "x86-6.12-virtioiommu-qtrace-s105",
    "x86-7.3-campress-cma192M-s95",
    "x86-7.3-lazy-mixed-iova-s53",
)
READ_LINES = 6000  # of each: enough for windows, and short to read


@cache
def recording(name):
    """The first lines of a recording, its sidecar, and the first lines of its emulator's log."""
    folder = DATA / "traces"
    lines = _first_lines(folder / f"{name}.trace.gz")
    log = folder / f"{name}.emulator.gz"
    return lines, json.loads((folder / f"{name}.json").read_bytes()), _first_lines(log) if log.exists() else []


def _first_lines(path):
    with gzip.open(path, "rb") as file:
        return [line.rstrip(b"\n") for line in itertools.islice(file, READ_LINES)]


def cut_out(rng):
    """A piece of a real recording: its lines, its sidecar, and a piece of the emulator's log of about then."""
    lines, sidecar, log = recording(rng.choice(RECORDINGS))
    length = rng.randint(1, 60)
    # Half of them from the beginning on, where a machine's facts are told.
    begin = 0 if rng.random() < 0.5 else rng.randrange(len(lines))
    first = rng.randrange(len(log) or 1) * (begin > 0)
    return lines[begin : begin + length], sidecar, log[first : first + rng.randint(1, 60)]


class Device:
    """A device of the made-up machine, with what of its memory is in use."""

    def __init__(self, rng, number, mode):
        self.name = rng.choice((f"0000:00:0{number}.0", f"cam.{number}", f"1000{number}0.video codec"))
        self.mode = mode  # direct, bounce, translated
        self.group = number if rng.random() < 0.8 else 1
        self.mask_bits = rng.choice((24, 30, 32, 32, 36, 64))
        self.iovad = 0xFFFF_0000_0315_0000 + 0x1000 * self.group
        self.next_iova = 0xFFFFF
        self.free_iovas = []
        self.allocs = []  # (bus, size, virt, pfn, pages)
        self.maps = []  # (bus, size, phys)
        self.lists = []  # (bus addresses, sizes, phys addresses)


class Machine:
    """The machine that writes: each method is a call of a driver and the lines that it leaves."""

    def __init__(self, rng, *, mischief):
        self.rng, self.mischief = rng, mischief
        self.lines = []
        self.now = rng.choice((0, 1_999_999, 12_000_000, 99_999_000_000))
        self.old = rng.random() < 0.7  # 6.12, else newer
        self.probes = rng.random() < 0.4
        self.vtd = rng.random() < 0.4
        self.base = rng.choice((0x40000, 0xB5A00, 0xFFF00, 0x100000, 0x1234567))
        self.pages = rng.choice((16, 64, 256, 1024, 1024, 4096, 16384))
        self.used = {}  # first page -> pages, in the area
        modes = rng.choice((("direct",), ("translated",), ("bounce",), ("direct", "translated"), ("direct", "bounce")))
        self.devices = [Device(rng, number, rng.choice(modes)) for number in range(1, rng.randint(2, 4))]
        self.guest = []  # (iova, phys, size) mapped for a virtual machine
        self.frames = itertools.count(rng.choice((0x1000, 0x48000, 0xFFFFE, 0x100000)), rng.choice((1, 1, 1, 3, 64)))
        self.virts = itertools.count(0x15DB_8321, 0x1040)
        self.slots = itertools.count(0x7BF0_0000, 0x800)
        self.tasks = [("v4lcap", rng.randint(1, 400), cpu, ".....") for cpu in range(rng.randint(1, 2))]
        self.irq = ("<idle>", 0, 0, "d.h1.") if rng.random() < 0.5 else ("kworker/0:1H", 41, 0, "d.s2.")

    # -- lines

    def say(self, event, text, context=None):
        task, pid, cpu, flags = context or self.context
        self.now += self.rng.randrange(1, 900)
        seconds, us = divmod(self.now, 1_000_000)
        self.lines.append(f"{task:>16}-{pid:<7} [{cpu:03}] {flags} {seconds:>5}.{us:06}: {event}: {text}")

    def wrong(self, chance=0.12):
        """Whether this is the moment for something that can't be."""
        return self.mischief and self.rng.random() < chance

    def size(self):
        if self.wrong(0.04):
            return self.rng.choice(EDGES)
        return self.rng.choice((64, 512, 2048, PAGE, PAGE, 2 * PAGE, 3 * PAGE, 0x17000, 0x21000, 0x100001))

    def frame(self):
        return next(self.frames) & 0xF_FFFF_FFFF

    # -- the area

    def place(self, pages, align):
        """First fit, as the kernel looks for it; None if there is no place."""
        step, at = 1 << min(align, 8), 0
        for first, count in sorted(self.used.items()):
            if at + pages <= first:
                break
            at = -(-max(at, first + count) // step) * step
        return at if at + pages <= self.pages else None

    def area_alloc(self, pages):
        """The CMA lines of an allocation; the page number, None if it failed."""
        rng, align = self.rng, min(max(pages - 1, 0).bit_length(), 8)
        if self.wrong(0.02):
            align = rng.choice((63, 64, 4294967295, 20000))
        free = self.pages - sum(self.used.values())
        counts = f"count={pages}" if self.old else None
        counts = counts or f"request_count={pages} available_count={max(free, 0)} total_count={self.pages}"
        self.say("cma_alloc_start", f"name=reserved {counts} align={align}")
        at = self.place(pages, align)
        while at is not None and rng.random() < 0.06:
            self.say(
                "cma_alloc_busy_retry",
                f"name=reserved pfn={self.base + at:#x} page=00000000aa count={pages} align={align}",
            )
            at = self.place(pages + rng.randint(0, 8), align)
        if self.wrong():
            at = rng.choice((0, at or 0, rng.randrange(self.pages), self.pages - 1, self.pages, -pages))
        if at is None or rng.random() < 0.05:
            errno = rng.choice(ERRNOS)
            self.say(
                "cma_alloc_finish",
                f"name=reserved pfn=0x0 page=0000000000000000 count={pages} align={align} errorno={errno}",
            )
            return None
        self.used[at] = pages
        pfn = max(self.base + at, 0)
        self.say(
            "cma_alloc_finish",
            f"name=reserved pfn={pfn:#x} page=00000000cefbf4f9 count={pages} align={align} errorno=0",
        )
        return pfn

    def area_free(self, pfn, pages):
        if self.wrong():  # a part of it, more than it, somewhere in it
            pages = self.rng.choice((pages // 2, pages + 1, 0, 1, self.pages))
        if self.wrong():
            pfn += self.rng.choice((1, -1, pages // 2, self.pages, 1 << 40))
        self.used.pop(pfn - self.base, None)
        self.say("cma_release", f"name=reserved pfn={max(pfn, 0):#x} page=00000000ef80c34c count={pages}")

    # -- coherent memory

    def alloc(self, device):
        rng = self.rng
        pages = rng.choice(CAMERA_PAGES[: 8 if self.pages < 1024 else None])
        size = pages * PAGE - rng.choice((0, 0, 1, 2048))
        if self.wrong(0.04):
            size = rng.choice(EDGES)
            pages = -(-size // PAGE)
        virt = next(self.virts)
        if self.wrong(0.05) and any(each.allocs for each in self.devices):  # another device's pointer
            virt = next(each.allocs[0][2] for each in self.devices if each.allocs)
        pfn = None
        if device.mode == "translated":
            pieces = self.pieces(size)
            iova = self.iova_alloc(device, -(-size // PAGE))
            bus = iova * PAGE
            at = bus
            for phys, part in pieces:
                self.domain_map(device, at, phys, part)
                at += part
        elif device.name.startswith("cam") or rng.random() < 0.6:
            pfn = self.area_alloc(pages)
            bus = (self.frame() if pfn is None else pfn) * PAGE
        else:
            bus = self.frame() * PAGE
        if rng.random() < 0.04:
            virt = 0
        if self.wrong(0.05):
            bus = rng.choice((*EDGES, *(alloc[0] for each in self.devices for alloc in each.allocs)))
        self.say(
            "dma_alloc",
            f"{device.name} dir=BIDIRECTIONAL dma_addr={bus:x} size={size} virt_addr={virt:016x} flags=GFP_KERNEL "
            f"attrs={rng.choice(('', '', 'WEAK_ORDERING|NO_WARN'))}",
        )
        device.allocs.append((bus, size, virt, pfn, pages))

    def free(self, device):
        if not device.allocs:
            return
        at = self.rng.randrange(len(device.allocs))
        bus, size, virt, pfn, pages = device.allocs[at] if self.wrong() else device.allocs.pop(at)
        if self.wrong(0.05):
            size += self.rng.choice((PAGE, -PAGE * (size > PAGE), 1))
        if self.wrong(0.05):
            device = self.rng.choice(self.devices)
        if not self.wrong(0.05):
            self.say(
                "dma_free", f"{device.name} dir=BIDIRECTIONAL dma_addr={bus:x} size={size} virt_addr={virt:016x} attrs="
            )
        if pfn is not None and not self.wrong(0.05):
            self.area_free(pfn, pages)
        if device.mode == "translated":
            self.domain_unmap(device, bus, size)
            self.iova_free(device, bus // PAGE, -(-size // PAGE))

    def pieces(self, size):
        """Memory in pieces, whole pages."""
        left = max(-(-size // PAGE), 1)
        if left > 1 << 14:
            return [(self.frame() * PAGE, left * PAGE)]
        found = []
        while left:
            part = min(left, self.rng.choice((1, 1, 2, 16, 512)))
            found.append((self.frame() * PAGE, part * PAGE))
            left -= part
        return found[:12]

    # -- translation

    def iova_alloc(self, device, pages):
        pages = max(pages, 1)
        rounded = 1 << (pages - 1).bit_length()
        again = next((each for each in device.free_iovas if each[1] == pages), None)
        if again:
            device.free_iovas.remove(again)
            pfn = again[0]
        else:
            pfn = max((device.next_iova + 1 - pages) // rounded * rounded, 0)
            device.next_iova = max(pfn - 1, rounded)
        if self.wrong(0.05):
            pfn = self.rng.choice((0, pfn + 1, 1 << 40, device.next_iova + 1))
        if self.probes:
            ends = "(iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast)"
            self.say(
                "iova_alloc", f"(alloc_iova_fast+0x0/0x378) iovad={device.iovad:#x} size={pages} limit=0xfffff flush=0"
            )
            if not again and not self.wrong():
                self.say(
                    "iova_slow", f"(alloc_iova+0x0/0x2e0) iovad={device.iovad:#x} size={pages} limit=0xfffff aligned=1"
                )
                self.say(
                    "iova_slow_ret",
                    f"(alloc_iova_fast+0x14c/0x378 <- alloc_iova) pfn_hi={pfn + pages - 1:#x} pfn_lo={pfn:#x}",
                )
            self.say("iova_alloc_ret", f"{ends} ret={pfn:#x}")
        return pfn

    def iova_free(self, device, pfn, pages):
        device.free_iovas.append((pfn, max(pages, 1)))
        if self.probes:
            self.say(
                "iova_free", f"(free_iova_fast+0x0/0x200) iovad={device.iovad:#x} pfn={pfn:#x} size={max(pages, 1)}"
            )

    def domain_map(self, device, iova, phys, size, prot=7):
        domain = device.iovad - 0x3C8
        if self.probes:
            self.say(
                "iommu_map",
                f"(iommu_map+0x0/0xf8) domain={domain:#x} iova={iova:#x} paddr={phys:#x} size={size} prot={prot:#x}",
            )
        if not self.wrong(0.04):
            end = (iova + size) & ((1 << 64) - 1)
            self.say("map", f"IOMMU: iova={iova:#018x} - {end:#018x} paddr={phys:#018x} size={size}")

    def domain_unmap(self, device, iova, size):
        size = -(-(iova % PAGE + size) // PAGE) * PAGE
        iova -= iova % PAGE
        if self.wrong(0.06):  # a part, or more
            size = self.rng.choice((PAGE, size + PAGE, size // 2))
        if self.probes:
            self.say(
                "iommu_unmap_fast",
                f"(iommu_unmap_fast+0x0/0x30) domain={device.iovad - 0x3C8:#x} iova={iova:#x} size={size}",
            )
        done = size if not self.wrong(0.06) else self.rng.choice((0, PAGE, 2 * size))
        end = (iova + size) & ((1 << 64) - 1)
        self.say("unmap", f"IOMMU: iova={iova:#018x} - {end:#018x} size={size} unmapped_size={done}")
        if self.vtd:
            last = min(iova + max(size, 1) - 1, (1 << 64) - 1)
            pages = f"pages {max(size // PAGE, 1):#x} " if self.old else ""
            self.say(
                "cache_tag_flush_range",
                f"dmar0 {device.name.split()[0] if self.wrong(0.03) else 'dmar0'}[0] type iotlb did 3 [{iova:#x}-{last:#x}] "  # noqa: E501
                f"addr {iova:#x} {pages}mask 0x0",
            )
            self.say("qi_submit", f"iotlb_inv dmar0: 0x300f2 {iova | 0x40:#x} 0x0 0x0")

    # -- streaming

    def bus_of(self, device, phys, size):
        """The bus address of a piece of memory, with the lines that it takes to get there."""
        if device.mode == "translated":
            offset = phys % PAGE
            pages = -(-(offset + size) // PAGE)
            bus = self.iova_alloc(device, pages) * PAGE
            self.domain_map(device, bus, phys - offset, max(pages, 1) * PAGE)
            return bus + offset
        if device.mode == "bounce":
            self.say(
                "swiotlb_bounced",
                f"dev_name: {device.name} dma_mask={(1 << device.mask_bits) - 1:x} dev_addr={phys:x} size={size} "
                f"{self.rng.choice(('FORCE', 'NORMAL'))}",
            )
            return next(self.slots)
        return phys

    def map_page(self, device):
        rng, size = self.rng, self.size()
        phys = self.frame() * PAGE + rng.choice((0, 0, 0x200, 0xFFF))
        if self.wrong(0.08) and device.maps:
            phys = rng.choice(device.maps)[2]
        bus = self.bus_of(device, phys, size)
        if rng.random() < 0.03:
            bus = (1 << 64) - 1
        if self.wrong(0.06) and device.maps:
            bus = rng.choice(device.maps)[0]
        event = "dma_map_resource" if rng.random() < 0.04 else "dma_map_page" if self.old else "dma_map_phys"
        self.say(event, f"{device.name} dir={self.direction()} dma_addr={bus:x} size={size} phys_addr={phys:x} attrs=")
        device.maps.append((bus, size, phys, event))

    def direction(self):
        return self.rng.choice(("TO_DEVICE", "FROM_DEVICE", "BIDIRECTIONAL"))

    def unmap_page(self, device):
        if not device.maps:
            return
        at = self.rng.randrange(len(device.maps))
        bus, size, _, event = device.maps[at] if self.wrong() else device.maps.pop(at)
        if device.mode == "translated" and bus < (1 << 64) - 1:
            self.domain_unmap(device, bus, size)
            self.iova_free(device, bus // PAGE, -(-(bus % PAGE + size) // PAGE))
        if self.wrong(0.04):
            size += self.rng.choice((1, PAGE))
        self.say(
            event.replace("map", "unmap"), f"{device.name} dir={self.direction()} dma_addr={bus:x} size={size} attrs="
        )

    def map_list(self, device):
        rng = self.rng
        sizes = [self.size() for _ in range(rng.choice((1, 2, 3, 8)))]
        if sum(sizes) >= 1 << 64:
            sizes = sizes[:1]
        phys = [self.frame() * PAGE for _ in sizes]
        if rng.random() < 0.05:
            listed = ",".join(map(hex, phys))
            self.say(
                "dma_map_sg_err",
                f"{device.name} dir=TO_DEVICE dma_addrs={{{listed}}} err={rng.choice((-11, -12, -5))} attrs=",
            )
            return
        if device.mode == "translated":  # one range for all, merged
            total = sum(-(-size // PAGE) for size in sizes)
            bus = [self.iova_alloc(device, total) * PAGE]
            if self.probes:
                self.say(
                    "iommu_map_sg",
                    f"(iommu_map_sg+0x0/0x1e0) domain={device.iovad - 0x3C8:#x} iova={bus[0]:#x} nents={len(sizes)} prot=0x7",  # noqa: E501
                )
            at = bus[0]
            for place, size in zip(phys, sizes, strict=True):
                part = max(-(-size // PAGE), 1) * PAGE
                self.domain_map(device, at, place, part)
                at += part
            out = [sum(sizes)]
        else:
            bus, out = [self.bus_of(device, *pair) for pair in zip(phys, sizes, strict=True)], sizes
        lists = [",".join(map(hex, values)) for values in (bus, out, phys)]
        counts = f"nents={len(phys)}/{len(phys)} ents={len(bus)}/{len(bus)} " * (rng.random() < 0.5)
        self.say(
            "dma_map_sg",
            f"{device.name} dir={self.direction()} {counts}dma_addrs={{{lists[0]}}} sizes={{{lists[1]}}} "
            f"phys_addrs={{{lists[2]}}} attrs=",
        )
        device.lists.append((bus, sum(sizes), lists[2]))

    def unmap_list(self, device):
        if not device.lists:
            return
        bus, size, listed = device.lists[0] if self.wrong() else device.lists.pop(0)
        if device.mode == "translated":
            self.domain_unmap(device, bus[0], size)
            self.iova_free(device, bus[0] // PAGE, -(-size // PAGE))
        if self.wrong():
            listed = listed.partition(",")[2] or listed
        self.say("dma_unmap_sg", f"{device.name} dir={self.direction()} phys_addrs={{{listed}}} attrs=")

    def sync(self, device):
        if device.maps:
            bus, size, *_ = self.rng.choice(device.maps)
            whom = self.rng.choice(("cpu", "device"))
            if self.wrong(0.2):
                bus, size = bus + 64, size + 64
            self.say(
                f"dma_sync_single_for_{whom}", f"{device.name} dir={self.direction()} dma_addr={bus:x} size={size}"
            )

    # -- what is not a driver's

    def guest_map(self, device):
        phys, iova = self.frame() * PAGE, self.rng.choice((0, 0x10_0000, 0x4000_0000)) + 0x20_0000 * len(self.guest)
        size = self.rng.choice((PAGE, 16 * PAGE, 0x20_0000, 0x4000_0000, 0x1_0000_0000))
        if self.wrong() and self.guest:
            iova = self.guest[-1][0] + self.rng.choice((0, PAGE))
        self.say("map", f"IOMMU: iova={iova:#018x} - {iova + size:#018x} paddr={phys:#018x} size={size}")
        self.guest.append((iova, size))

    def guest_unmap(self, device):
        if self.guest:
            iova, size = self.guest[-1] if self.wrong() else self.guest.pop()
            if self.wrong():
                iova, size = iova + size // 2, max(size // 2, PAGE)
            self.domain_unmap(device, iova, size)

    def device_comes(self, device):
        self.say("add_device_to_group", f"IOMMU: groupID={device.group} device={device.name}")
        self.say("attach_device_to_domain", f"IOMMU: device={device.name}")
        if self.vtd:
            self.say("cache_tag_assign", "dmar0/dmar0 type iotlb did 3 pasid 0 ref 1")
        if self.probes:
            self.say(
                "iova_init",
                f"(init_iova_domain+0x0/0x90) iovad={device.iovad:#x} granule={self.rng.choice((4096, 4096, 4096, 65536 if self.mischief else 4096))} start=0x1",  # noqa: E501
            )
            self.say("iova_reserve", f"(reserve_iova+0x0/0x188) iovad={device.iovad:#x} lo=0xfee00 hi=0xfeeff")

    def device_goes(self, device):
        if self.vtd:
            self.say("cache_tag_unassign", "dmar0/dmar0 type iotlb did 3 pasid 0 ref 1")
        self.say("remove_device_from_group", f"IOMMU: groupID={device.group} device={device.name}")

    def other(self, device):
        """Lines that stand alone."""
        rng = self.rng
        which = rng.randrange(6)
        if which == 0:
            self.say("tracing_mark_write", f"PHASE {rng.choice(('end', 'nvme mount', 'cam churn'))}")
        elif which == 1:
            self.say(
                "io_page_fault",
                f"IOMMU:arm-smmu-v3 {device.name.split()[0]} iova={rng.choice(EDGES):#018x} flags=0x0001",
            )
        elif which == 2 and self.mischief:
            self.lines.append(f"CPU:{rng.randint(0, 2)} [LOST {rng.randint(1, 999)} EVENTS]")
        elif which == 3 and self.mischief:
            self.base += rng.choice((256, -256, 0x10000, 1))  # the area moves
        elif which == 4 and self.mischief:
            self.now = max(self.now + rng.choice((-1_500_000, -300, 3_000_000_000)), 0)
        elif self.vtd:
            self.say("cache_tag_flush_all", "dmar0/dmar0 type iotlb did 3 pasid 0 ref 1")

    def run(self, steps):
        rng = self.rng
        self.context = rng.choice(self.tasks)
        for device in self.devices:
            if rng.random() < 0.6:
                self.device_comes(device)
        for _ in range(steps):
            device = rng.choice(self.devices)
            begins = rng.random() < 0.6
            self.context = rng.choice(self.tasks) if begins or rng.random() < 0.5 else self.irq
            step = rng.choice(_BEGINS if begins else _ENDS)
            if self.mischief and rng.random() < 0.08:  # two lines of execution at once
                self.interleaved(step, rng.choice(_BEGINS), device)
            else:
                step(self, device)
        return self.lines

    def interleaved(self, one, other, device):
        """Two calls whose lines are mixed, in two contexts."""
        mark = len(self.lines)
        one(self, device)
        middle = len(self.lines)
        self.context = self.irq
        other(self, self.rng.choice(self.devices))
        first, second = self.lines[mark:middle], self.lines[middle:]
        del self.lines[mark:]
        while first or second:
            source = first if first and (not second or self.rng.random() < 0.5) else second
            self.lines.append(source.pop(0))

    # -- beside it

    def sidecar(self):
        """What a sidecar would say of this machine."""
        mode = {"direct": "off", "bounce": "swiotlb", "translated": "strict"}
        memory = self.rng.choice(
            (
                ["40000000-bfffffff : System RAM"],
                [
                    "00001000-0009ffff : System RAM",
                    "00100000-7fffffff : System RAM",
                    "100000000-17fffffff : System RAM",
                ],
            )
        )
        facts = {
            "name": "case",
            "kernel": "6.12.107+deb13-arm64" if self.old else "7.3.0-rc1",
            "arch": self.rng.choice(("aarch64", "x86_64")),
            "page_size": 4096,
            "cpus": self.rng.randint(1, 4),
            "iommu": {"mode": self.rng.choice((mode[self.devices[0].mode], "lazy", "pt"))},
            "boot_parameters": "quiet cma=64M "
            + self.rng.choice(("", "swiotlb=512", "swiotlb=512,force", "iommu.forcedac=1")),
            "pci_functions": [
                f"{device.name} 0x1b36 0x0010 class=0x{self.rng.choice(('010802', '020000', '080600'))} driver=x "
                f"dma_mask_bits={device.mask_bits} consistent={device.mask_bits}"
                for device in self.devices
                if " " not in device.name
            ],
            "system_ram": memory,
            "dmesg_excerpt": ["[    0.0] software IO TLB: mapped [mem 0x000000007bf00000-0x000000007c000000] (1MB)"]
            * (self.devices[0].mode == "bounce"),
        }
        if any(device.mode == "translated" for device in self.devices):
            facts["iommu_groups"] = [
                line
                for device in self.devices
                for line in (
                    f"group {device.group} type=DMA devices={device.name.split()[0]} ",
                    "  resv 0x0000000008000000 0x00000000080fffff msi",
                )
            ]
        if self.rng.random() < 0.8:
            facts["cma_area"] = {"base_pfn": hex(self.base), "total_pages": self.pages}
            if self.rng.random() < 0.7:
                used = [[0, 4], [8, 4]] if self.rng.random() < 0.3 else []
                facts["cma_area"]["in_use_before_trace_extents_offset_count"] = used
        return facts


_BEGINS = (
    Machine.alloc,
    Machine.alloc,
    Machine.map_page,
    Machine.map_page,
    Machine.map_list,
    Machine.guest_map,
    Machine.other,
)
_ENDS = (
    Machine.free,
    Machine.free,
    Machine.unmap_page,
    Machine.unmap_page,
    Machine.unmap_list,
    Machine.guest_unmap,
    Machine.sync,
    Machine.device_goes,
)


def written(rng, *, mischief, steps=None):
    """Lines of a machine, and its sidecar."""
    machine = Machine(rng, mischief=mischief)
    sidecar = machine.sidecar()
    lines = machine.run(rng.randint(1, 18) if steps is None else steps)
    return [line.encode() for line in lines], sidecar


# -- damage


def damaged(rng, lines):
    """Lines with what happens to files: a lost beginning, holes, repetitions, disorder, other bytes."""
    lines = list(lines)
    for _ in range(rng.choice((1, 1, 2))):
        how, at, length = rng.randrange(7), rng.randrange(len(lines) + 1), rng.randint(1, 12)
        if how == 0:
            del lines[:at]
        elif how == 1:
            del lines[at : at + length]
        elif how == 2:
            lines[at:at] = lines[at : at + length]
        elif how == 3:
            piece = lines[at : at + length]
            rng.shuffle(piece)
            lines[at : at + length] = piece
        elif how == 4 and lines:
            lines = [line for line in lines if rng.random() > 0.2]
        elif how == 5:
            lines[at:at] = rng.choices(LINES, k=min(length, 4))
        else:
            lines = [damaged_line(rng, line) if rng.random() < 0.25 else line for line in lines]
    return lines


def damaged_line(rng, line, others=LINES):
    """A line with a number changed, or some of its bytes."""
    line = bytearray(line)
    at, length = rng.randrange(len(line) + 1), rng.randint(0, 12)
    how = rng.randrange(8)
    if how < 3:  # a number, whole
        places = [match for match, byte in enumerate(line) if byte == 0x3D]  # behind a =
        if places:
            at = rng.choice(places) + 1
            stop = at
            while stop < len(line) and line[stop] not in b" ,}":
                stop += 1
            line[at:stop] = rng.choice(NUMBERS) if rng.random() < 0.6 else hex(rng.choice(EDGES)).encode()[2:]
    elif how == 3:
        del line[at : at + length]
    elif how == 4:
        line[at:at] = line[at : at + 3 * length]
    elif how == 5:
        line[at : at + length] = rng.choice(NUMBERS)
    elif how == 6:
        line[at:at] = bytes(rng.choices(BYTES, k=length))
    else:
        other = rng.choice(others)
        line[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(line)
