"""A kernel that is none: it prints random calls as ftrace text, and writes down what it meant by them."""

import itertools
import random

import attrs

from swiommu.requests import OpCode

PAGE = 4096
RAM = (0x4000_0000, 0xC000_0000)
ERROR = (1 << 64) - 1


def align_up(value, to=PAGE):
    return -(-value // to) * to


@attrs.define(eq=False)
class Wanted:
    """One request as it was meant; `said` is what pairing must say of it."""

    kind: str
    device: str
    size: int
    direction: str = ""
    gfp: str = ""
    pieces: tuple = ()
    censored: bool = False
    iova: int | None = None
    line: int = 0
    pfn: int | None = None
    fell_back: bool = False
    busy_pfns: tuple = ()
    maps: int = 0
    unmaps: int = 0
    bounced: int = 0
    synced: int = 0
    key: object = None


@attrs.define(eq=False)
class Taken:
    """Pages of the area that are nobody's request."""

    pfn: int
    count: int
    align: int
    busy_pfns: tuple = ()
    was_start_extent: bool = False


class Iovas:
    """First fit from the top with a page of distance, so that runs of different calls never touch."""

    def __init__(self, top=0x1_0000_0000):
        self.top = top
        self.used = {}

    def take(self, pages):
        stop = self.top
        for start in sorted(self.used, reverse=True):
            if stop - (start + self.used[start]) >= (pages + 2) * PAGE:
                break
            stop = start
        start = stop - (pages + 1) * PAGE
        self.used[start] = pages * PAGE
        return start

    def give(self, start):
        del self.used[start]


class FakeKernel:
    """Makes random calls in several contexts at once, prints what a kernel prints, and writes down what was meant.

    A call is a generator of lines; what stands before a ``yield`` happens when that line is printed. ``devices`` is a
    mode by name: direct, iommu, two-step, bounce.
    """

    AREA = (0x60000, 4096)
    EXTENTS = ((0, 64), (128, 32))

    def __init__(self, seed, *, devices=None, dma_events=True, version="6.12", only=None):
        self.random = random.Random(seed)
        self.devices = devices or {
            "0000:00:01.0": "iommu",
            "0000:00:02.0": "iommu",
            "vivid.0": "direct",
            "0000:00:04.0": "bounce",
            "0000:00:05.0": "two-step",
        }
        self.dma_events, self.version, self.only = dma_events, version, only
        self.lines = ["# tracer: nop", "#"]
        self.time = 1_000_000
        self.ops = []
        self.counts = dict.fromkeys(("freed_nothing", "msi_maps", "identity_maps", "refused_usermaps", "ambiguous"), 0)
        # Two devices of the IOMMU have domains of their own, so they use the same IOVAs; the two-step API's device
        # has IOVAs elsewhere, because a map line doesn't tell its domain.
        low = {"two-step": 0x8000_0000}
        self.iovas = {name: Iovas(low.get(mode, 0x1_0000_0000)) for name, mode in self.devices.items()}
        self.iovas["vfio"] = Iovas(0x200_0000_0000)
        self.live, self.background, self.extents = [], [], list(self.EXTENTS)
        self.area = {}
        self.virt = itertools.count(0x1000)
        self.slot = itertools.count(0x7000_0000, 0x4_0000)

    # -- printing ---------------------------------------------------------------------------------------------------

    def run(self, steps, contexts=((0, 10, "."), (0, 11, "."), (1, 12, "."), (0, 10, "h"), (1, 12, "s"), (0, 11, "H"))):
        running = dict.fromkeys(contexts)
        if self.dma_events:  # a trace without any is read by other rules
            self.print(next(self.free_nothing()), contexts[0])
        for _ in range(steps):
            self.step(running, self.random.choice(contexts))
        for context in contexts:
            while running[context]:
                self.step(running, context, fresh=False)
        return self

    def step(self, running, context, *, fresh=True):
        if running[context] is None and fresh:
            running[context] = self.call()
        text = next(running[context], None) if running[context] else None
        if text is None:
            running[context] = None
        else:
            self.print(text, context)

    def print(self, text, context):
        cpu, pid, level = context
        self.time += self.random.randrange(0, 50)
        flags = f"{'d' if level != '.' else '.'}.{level}.."
        stamp = f"{self.time // 1_000_000:6}.{self.time % 1_000_000:06}"
        self.lines.append(f"{f'a b/{pid}:0-{pid}':>20}     [{cpu:03}] {flags} {stamp}: {text}")

    @property
    def text(self):
        return "\n".join(self.lines) + "\n"

    @property
    def sidecar(self):
        base, total = self.AREA
        return {
            "system_ram": [f"{RAM[0]:x}-{RAM[1] - 1:x} : System RAM"],
            "cma_area": {
                "base_pfn": hex(base),
                "total_pages": total,
                "in_use_before_trace_extents_offset_count": [list(extent) for extent in self.EXTENTS],
            },
        }

    def begin(self, wanted):
        wanted.line = len(self.lines) + 1
        self.ops.append((OpCode.BEGIN, wanted))
        return wanted

    def end(self, wanted):
        self.ops.append((OpCode.END, wanted))

    # -- choosing ---------------------------------------------------------------------------------------------------

    def call(self):
        calls = {
            "map_page": 4,
            "map_sg": 4,
            "alloc": 4,
            "two_step": 3,
            "unmap": 12,
            "free_nothing": 1,
            "msi": 1,
            "identity": 1,
            "occupy": 2,
            "release": 2,
            "failed_list": 1,
            "sync": 2,
            "user_map": 2,
            "mark": 1,
        }
        names = self.only or [name for name, weight in calls.items() for _ in range(weight)]
        return getattr(self, self.random.choice(names))()

    def device(self, *modes):
        return self.random.choice([name for name, mode in self.devices.items() if mode in modes])

    def phys(self, pages=16):
        return RAM[0] + self.random.randrange(pages) * PAGE

    def direction(self):
        return self.random.choice(["TO_DEVICE", "FROM_DEVICE", "BIDIRECTIONAL"])

    # -- lines ------------------------------------------------------------------------------------------------------

    @staticmethod
    def map_line(iova, phys, size):
        return f"map: IOMMU: iova=0x{iova:016x} - 0x{iova + size:016x} paddr=0x{phys:016x} size={size}"

    @staticmethod
    def unmap_line(iova, size):
        return f"unmap: IOMMU: iova=0x{iova:016x} - 0x{iova + size:016x} size={size} unmapped_size={size}"

    def bounce_line(self, device, phys, size):
        return f"swiotlb_bounced: dev_name: {device} dma_mask=ffffffff dev_addr={phys:x} size={size} FORCE"

    # -- streaming --------------------------------------------------------------------------------------------------

    def map_page(self):
        device = self.device("iommu", "direct", "bounce")
        size = self.random.choice([64, 512, PAGE, 3 * PAGE])
        phys = self.phys() + self.random.choice([0, 0x40])
        wanted = Wanted("MAP", device, size, self.direction(), pieces=((phys, size),))
        address = phys
        if self.devices[device] == "iommu":
            pages = align_up(phys % PAGE + size)
            iova = self.iovas[device].take(pages // PAGE)
            yield self.map_line(iova, phys - phys % PAGE, pages)
            address, wanted.maps = iova + phys % PAGE, 1
            wanted.key = ("page", iova, pages)
        elif self.devices[device] == "bounce":
            yield self.bounce_line(device, phys, size)
            wanted.censored = self.random.random() < 0.2
            address = ERROR if wanted.censored else next(self.slot)
            wanted.bounced = 0 if wanted.censored else size
        event = "dma_map_page" if self.version == "6.12" else "dma_map_phys"
        self.begin(wanted)
        if not wanted.censored:
            self.live.append((wanted, address))
        yield (f"{event}: {device} dir={wanted.direction} dma_addr={address:x} size={size} phys_addr={phys:x} attrs=")

    def unmap(self):
        """End the oldest live request that looks like a random one."""
        if not self.live:
            return
        like = self.random.choice(self.live)
        item = next(item for item in self.live if self.looks(item) == self.looks(like))
        self.live.remove(item)
        wanted, address = item
        kind = {"ALLOC": self.free, "USERMAP": self.user_unmap}.get(wanted.kind)
        if kind is None:
            kind = (
                self.unmap_run
                if not wanted.device
                else self.unmap_sg
                if len(wanted.key or ()) == 2
                else self.unmap_page
            )
        yield from kind(wanted, address)

    @staticmethod
    def looks(item):
        wanted, address = item
        size = 0 if isinstance(address, tuple) else wanted.size
        return wanted.kind, wanted.device, address, size, wanted.direction

    def unmap_page(self, wanted, address):
        if wanted.maps:
            _, iova, size = wanted.key
            yield self.unmap_line(iova, size)
            self.iovas[wanted.device].give(iova)
            wanted.unmaps = 1
        self.end(wanted)
        event = "dma_unmap_page" if self.version == "6.12" else "dma_unmap_phys"
        yield f"{event}: {wanted.device} dir={wanted.direction} dma_addr={address:x} size={wanted.size} attrs="

    def entries(self, count):
        entries, used = [], set()
        for _ in range(count):
            phys, size = self.phys(16 if count < 4 else 1 << 16), self.random.choice([PAGE, PAGE, 2 * PAGE])
            if entries and self.random.random() < 0.6:
                phys = align_up(sum(entries[-1]))
            if phys in used:
                continue
            used |= {phys, phys + PAGE}
            if self.random.random() < 0.15:
                phys, size = phys + 0x200, size - 0x400
            entries.append((phys, size))
        return entries

    def map_sg(self, count=None):
        device = self.device("iommu", "direct", "bounce")
        entries = self.entries(count or self.random.choice([1, 2, 3, 8, 8, 130, 150]))
        size = sum(length for _, length in entries)
        wanted = Wanted("MAP", device, size, self.direction(), pieces=tuple(entries))
        segments = entries
        if self.devices[device] == "iommu":
            iova, maps, segments = self.layout(device, entries)
            wanted.maps = len(maps)
            if len(segments) < len(entries) or len(entries) > 128:  # joined or cut: only the maps tell the lengths
                wanted.pieces = tuple((phys, length) for _, phys, length in maps)
            for line in maps:
                yield self.map_line(*line)
            wanted.key = (iova, sum(length for _, _, length in maps))
        elif self.devices[device] == "bounce":
            segments = []
            for phys, length in entries:
                yield self.bounce_line(device, phys, length)
                segments.append((next(self.slot), length))
            wanted.bounced = size
        self.cut(wanted, entries, segments)
        phys_addrs = tuple(phys for phys, _ in entries[:128])
        wanted.key = wanted.key or (None, None)
        self.begin(wanted)
        self.live.append((wanted, phys_addrs))
        yield self.sg_line(wanted, entries, segments)

    def layout(self, device, entries):
        """What dma-iommu does: padded to pages, one map per contiguous piece, neighbours joined into segments."""
        pages = sum(align_up(phys % PAGE + size) for phys, size in entries)
        iova = at = self.iovas[device].take(pages // PAGE)
        maps, segments, gap = [], [], True
        for phys, size in entries:
            offset, padded = phys % PAGE, align_up(phys % PAGE + size)
            if maps and maps[-1][1] + maps[-1][2] == phys - offset:
                maps[-1] = (*maps[-1][:2], maps[-1][2] + padded)
            else:
                maps.append((at, phys - offset, padded))
            if gap or offset:
                segments.append((at + offset, size))
            else:
                segments[-1] = (segments[-1][0], segments[-1][1] + size)
            at += padded
            gap = offset + size != padded
        return iova, maps, segments

    def cut(self, wanted, entries, segments):
        """What the kernel doesn't print nobody can know: pieces and sizes behind the 128th entry of a direct list."""
        if len(segments) > 128:
            if wanted.maps:
                wanted.size = sum(size for _, size in wanted.pieces)
            else:
                wanted.pieces = tuple(
                    (phys, size) for (phys, _), (_, size) in zip(entries[:128], segments[:128], strict=True)
                )
                wanted.size = sum(size for _, size in segments[:128])
                self.counts["ambiguous"] += 1
                if wanted.bounced:
                    wanted.bounced = wanted.size

    def sg_line(self, wanted, entries, segments):
        def listed(values):
            return f"{{{','.join(f'0x{value:x}' for value in values[:128])}}}"

        shown, ents = min(len(entries), 128), min(len(segments), 128)
        counts = f"nents={shown}/{len(entries)} ents={ents}/{len(segments)}"
        truncated = " [TRUNCATED]" if (shown, ents) != (len(entries), len(segments)) else ""
        return (
            f"dma_map_sg: {wanted.device} dir={wanted.direction} {counts}{truncated} "
            f"dma_addrs={listed([address for address, _ in segments])} sizes={listed([size for _, size in segments])} "
            f"phys_addrs={listed([phys for phys, _ in entries])} attrs="
        )

    def unmap_sg(self, wanted, phys_addrs):
        listed = ",".join(f"0x{phys:x}" for phys in phys_addrs)
        self.end(wanted)
        wanted.unmaps = 1 if wanted.maps else 0
        yield f"dma_unmap_sg: {wanted.device} dir={wanted.direction} phys_addrs={{{listed}}} attrs="
        if wanted.maps:
            iova, size = wanted.key
            self.iovas[wanted.device].give(iova)
            yield self.unmap_line(iova, size)

    def failed_list(self):
        """The pool was full inside a list: on 6.12 the bounces before that are all there is to see."""
        device = self.device("bounce")
        for phys, size in self.entries(2):
            yield self.bounce_line(device, phys, size)

    def sync(self):
        for wanted, address in self.random.sample(self.live, len(self.live)):
            if wanted.bounced and not isinstance(address, tuple):
                event, copies = self.random.choice([("for_cpu", "FROM_DEVICE"), ("for_device", "TO_DEVICE")])
                if wanted.direction in {copies, "BIDIRECTIONAL"}:
                    wanted.synced += 64
                self.ops.append((OpCode.SYNC, wanted))
                yield (f"dma_sync_single_{event}: {wanted.device} dir={wanted.direction} dma_addr={address:x} size=64")
                return

    # -- the two-step IOVA API --------------------------------------------------------------------------------------

    def two_step(self):
        device = self.device("two-step")
        lengths = [self.random.choice([1, 2, 16]) * PAGE for _ in range(self.random.randrange(1, 4))]
        iova = self.iovas[device].take(sum(lengths) // PAGE)
        wanted, at = None, iova
        pieces = []
        for length in lengths:
            pieces.append((self.phys(), length))
            if wanted is None:
                wanted = self.begin(Wanted("MAP", "", sum(lengths), maps=len(lengths)))
            if at + length == iova + sum(lengths):
                wanted.pieces = tuple(pieces)
                self.live.append((wanted, iova))
            yield self.map_line(at, pieces[-1][0], length)
            at += length

    def unmap_run(self, wanted, iova):
        self.end(wanted)
        wanted.unmaps = 1
        self.iovas[self.device("two-step")].give(iova)
        yield self.unmap_line(iova, wanted.size)

    def msi(self):
        iova = self.iovas[self.device("two-step")].take(1)
        self.counts["msi_maps"] += 1
        yield self.map_line(iova, 0x0809_0000, PAGE)

    def identity(self):
        iova = RAM[0] + 0x1000_0000 + self.counts["identity_maps"] * 16 * PAGE
        self.counts["identity_maps"] += 1
        yield self.map_line(iova, iova, 4 * PAGE)

    # -- coherent memory and the area -------------------------------------------------------------------------------

    def place(self, count):
        base, total = self.AREA
        align = min((count - 1).bit_length(), 8)
        while True:
            pfn = base + self.random.randrange(256, total - count) // (1 << align) * (1 << align)
            taken = self.area.items()
            if pfn >= base + 256 and all(pfn + count <= start or start + size <= pfn for start, size in taken):
                return pfn, align

    def area_call(self, count, *, fails):
        """The lines of one cma_alloc; returns what became of it."""
        pfn, align = self.place(count)
        if not fails:
            self.area[pfn] = count
        yield f"cma_alloc_start: name=reserved count={count} align={align}"
        busy = tuple(0x60000 + self.random.randrange(256) for _ in range(self.random.choice([0, 0, 1, 2])))
        for candidate in busy:
            yield f"cma_alloc_busy_retry: name=reserved pfn=0x{candidate:x} page=00000000c1 count={count} align={align}"
        return (None if fails else pfn), align, busy

    @staticmethod
    def finish_line(pfn, count, align):
        shown, errno = (0xFFFF_FFFF_FFFF_FFFF, -12) if pfn is None else (pfn, 0)
        return f"cma_alloc_finish: name=reserved pfn=0x{shown:x} page=0c1 count={count} align={align} errorno={errno}"

    def alloc(self):
        device = self.device("iommu", "direct", "two-step")
        size = self.random.choice([100, PAGE, 2 * PAGE, 5 * PAGE - 8, 40 * PAGE])
        wanted = Wanted("ALLOC", device, size, "BIDIRECTIONAL", gfp=self.random.choice(["GFP_KERNEL", "GFP_ATOMIC"]))
        virt, address = next(self.virt), self.phys() + 0x2000_0000
        if self.devices[device] != "direct":
            address = self.iovas[device].take(align_up(size) // PAGE)
            wanted.key = address
            at = 0
            while at < align_up(size):
                piece = min(self.random.choice([1, 16]) * PAGE, align_up(size) - at)
                yield self.map_line(address + at, self.phys(), piece)
                at += piece
                wanted.maps += 1
        elif size > PAGE and wanted.gfp == "GFP_KERNEL":
            count = align_up(size) // PAGE
            outcome = self.random.choice(["area", "area", "fallback", "failed"])
            wanted.pfn, align, wanted.busy_pfns = yield from self.area_call(count, fails=outcome != "area")
            yield self.finish_line(wanted.pfn, count, align)
            wanted.fell_back, wanted.censored = outcome == "fallback", outcome == "failed"
            address = address if wanted.pfn is None else wanted.pfn * PAGE
        if wanted.censored:
            address = virt = 0
        else:
            self.live.append((wanted, virt))
        self.begin(wanted)
        yield (
            f"dma_alloc: {device} dir=BIDIRECTIONAL dma_addr={address:x} size={size} virt_addr={virt:016x} "
            f"flags={wanted.gfp} attrs="
        )

    def free(self, wanted, virt):
        self.end(wanted)
        wanted.unmaps = 1 if wanted.maps else 0
        yield (
            f"dma_free: {wanted.device} dir=BIDIRECTIONAL dma_addr={wanted.key or 0x1000:x} size={wanted.size} "
            f"virt_addr={virt:016x} attrs="
        )
        if wanted.maps:
            self.iovas[wanted.device].give(wanted.key)
            yield self.unmap_line(wanted.key, align_up(wanted.size))
        if wanted.pfn is not None:
            count = self.area.pop(wanted.pfn)
            yield f"cma_release: name=reserved pfn=0x{wanted.pfn:x} page=00000000c1 count={count}"

    def free_nothing(self):
        self.counts["freed_nothing"] += 1
        yield f"dma_free: {self.device('direct')} dir=BIDIRECTIONAL dma_addr=0 size=0 virt_addr=0000000000000000 attrs="

    def occupy(self):
        count = self.random.choice([1, 3, 64])
        pfn, align, busy = yield from self.area_call(count, fails=self.random.random() < 0.2)
        if pfn is not None:
            self.background.append(Taken(pfn, count, align, busy))
            self.ops.append((OpCode.OCCUPY, self.background[-1]))
        yield self.finish_line(pfn, count, align)

    def release(self):
        if self.extents and self.random.random() < 0.3:
            offset, count = self.extents.pop()
            taken = Taken(self.AREA[0] + offset, count, 0, was_start_extent=True)
        elif self.background:
            taken = self.background.pop(self.random.randrange(len(self.background)))
            del self.area[taken.pfn]
        else:
            return
        self.ops.append((OpCode.VACATE, taken))
        yield f"cma_release: name=reserved pfn=0x{taken.pfn:x} page=00000000c1 count={taken.count}"

    # -- user space -------------------------------------------------------------------------------------------------

    def user_map(self):
        if self.random.random() < 0.2:
            self.counts["refused_usermaps"] += 1
            yield "tracing_mark_write: VFIO MAP iova=0x1000 size=0x1000 prot=rw rc=17"
            return
        lengths = [self.random.choice([1, 4]) * PAGE for _ in range(self.random.randrange(1, 4))]
        iova = at = self.iovas["vfio"].take(sum(lengths) // PAGE)
        pieces = []
        for length in lengths:
            pieces.append((self.phys(), length))
            yield self.map_line(at, pieces[-1][0], length)
            at += length
        wanted = Wanted("USERMAP", "", sum(lengths), pieces=tuple(pieces), iova=iova, maps=len(pieces))
        self.begin(wanted)
        self.live.append((wanted, iova))
        yield f"tracing_mark_write: VFIO MAP iova=0x{iova:x} size=0x{wanted.size:x} prot=rw rc=0"

    def user_unmap(self, wanted, iova):
        at = iova
        for _, length in wanted.pieces:
            yield self.unmap_line(at, length)
            at += length
        self.iovas["vfio"].give(iova)
        self.end(wanted)
        wanted.unmaps = 1
        yield f"tracing_mark_write: VFIO UNMAP iova=0x{iova:x} size=0x{wanted.size:x} rc=0"

    def mark(self):
        yield "tracing_mark_write: PHASE something else"
