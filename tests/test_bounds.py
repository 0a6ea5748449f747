"""Traces aimed at what could take the longer for each line the more lines there are: none takes minutes."""

import time

import attrs
import pytest

from swiommu.dma import SwiotlbPool
from swiommu.errors import InputError
from swiommu.iommu import IovaDomain
from swiommu.iommu.iova.free_space import FreeSpace
from swiommu.region import Bitmap
from swiommu.region.by_size import BySize
from swiommu.region.runs import FreeRuns
from swiommu.replay import DEFAULT_DESIGNS, PRESETS, Knobs, equal_plan, find_design, machine_plan, replay
from swiommu.requests import workload_of
from swiommu.verify import verify_iova
from swiommu.verify.iova.calls import read_calls

MANY = 10_000  # a step that looks at all the others takes longer than ENOUGH, one that does not a second
ENOUGH = 6


class Log:
    """Lines as a kernel prints them; every one a microsecond later, unless it is told to stand still."""

    def __init__(self, step=1):
        self.lines, self.at, self.step = ["# tracer: nop"], 0, step

    def say(self, text, pid=40, cpu="000"):
        self.at += self.step
        stamp = f"{4 + self.at // 10**6:5d}.{self.at % 10**6:06d}"
        self.lines.append(f"{f'x-{pid}':>20}     [{cpu}] ..... {stamp}: {text}")

    def map(self, phys, device="nvme0"):
        addresses = f"dma_addr={phys:x} size=4096 phys_addr={phys:x}"
        self.say(f"dma_map_page: {device} dir=FROM_DEVICE {addresses} attrs=")

    def unmap(self, addr, device="nvme0", direction="FROM_DEVICE"):
        self.say(f"dma_unmap_page: {device} dir={direction} dma_addr={addr:x} size=4096 attrs=")

    def text(self):
        return "\n".join(self.lines) + "\n"


def same_address():
    log = Log()
    for _ in range(MANY):
        log.map(0x1000)
    for _ in range(MANY):
        log.unmap(0x1000, direction="TO_DEVICE")
    return log


def failed_area_calls():
    log = Log()
    for _ in range(MANY):
        log.say("cma_alloc_finish: name=reserved pfn=0x0 page=0000000000000000 count=16 align=4 errorno=-12")
    log.say("dma_alloc: v dir=BIDIRECTIONAL dma_addr=0 size=65536 virt_addr=0 flags=GFP_KERNEL attrs=")
    return log


def area_calls_of_many_tasks():
    log = Log()
    for at in range(MANY):
        pages = f"pfn=0x{at * 16:x} page=0000000000000000 count=16"
        log.say(f"cma_alloc_finish: name=reserved {pages} align=4 errorno=0", pid=at + 1)
    for at in range(MANY):
        log.say(f"cma_release: name=reserved pfn=0x{(MANY + at) * 16:x} page=0000000000000000 count=16")
    log.map(0x1000)
    return log


def unmaps_held_back_by_many_tasks():
    log = Log()
    span = f"iova=0x{0x1000_0000:016x} - 0x{0x1000_1000:016x}"
    log.say(f"map: IOMMU: {span} paddr=0x{0x4000_0000:016x} size=4096", pid=7)
    for at in range(MANY):
        log.say(f"unmap: IOMMU: {span} size=4096 unmapped_size=4096", pid=100 + at)
    for _ in range(MANY):
        log.say(f"map: IOMMU: {span} paddr=0x{0x4000_0000:016x} size=4096", pid=7)
    for at in range(MANY):
        log.say("dma_unmap_page: nvme0 dir=TO_DEVICE dma_addr=ffffffff000 size=4096 attrs=", pid=100 + at)
    return log


@pytest.mark.parametrize(
    "aimed", [same_address, failed_area_calls, area_calls_of_many_tasks, unmaps_held_back_by_many_tasks]
)
def test_pairing_takes_no_longer_for_each_line(aimed, trace_of):
    trace = trace_of(aimed().text())
    begin = time.process_time()
    workload_of(trace)
    assert time.process_time() - begin < ENOUGH


def test_user_mappings_that_overlap_beyond_reason_are_refused(trace_of, monkeypatch):
    monkeypatch.setattr("swiommu.requests.pairing._PATIENCE", 1000)
    log = Log()
    for at in range(60):
        log.say(f"tracing_mark_write: VFIO MAP iova=0x{at:x}000 size=0x{1 << 40:x} rc=0")
    for _ in range(60):
        log.say("tracing_mark_write: VFIO UNMAP iova=0x0 size=0x100000 rc=0")
    with pytest.raises(InputError) as caught:
        workload_of(trace_of(log.text()))
    assert str(caught.value).endswith(".trace:78: so many user mappings overlap that they can't be followed")


def failing(log, at, size=4096):
    log.say(f"dma_map_page: nvme0 dir=TO_DEVICE dma_addr={2**64 - 1:x} size={size} phys_addr={at:x}000 attrs=")


def failing_alloc(log, size):
    log.say(f"dma_alloc: nvme0 dir=BIDIRECTIONAL dma_addr=0 size={size} virt_addr=0 flags=GFP_KERNEL attrs=")


def no_copy(*_):
    raise AssertionError("a probe copies what a design holds")


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(frames="random")], ids=["largest", "random"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_probe_copies_nothing_that_a_design_holds(name, knobs, trace_of, monkeypatch):
    """It takes what it tries and gives it back, so that it costs no more than that however much lives."""
    log = Log()
    for at in range(1, 20):
        log.map(at << 12)
        text = f"dma_addr=1000 size=8192 virt_addr={at:016x} flags=GFP_KERNEL attrs="
        log.say(f"dma_alloc: nvme0 dir=BIDIRECTIONAL {text}")
        failing(log, at)
        failing_alloc(log, 8192)
    workload = workload_of(trace_of(log.text()))
    for request in workload.requests:
        request.mask >>= request.index % 2  # what reaches only a part of memory is tried at its place
    plan = attrs.evolve(equal_plan(workload), base=(1 << 31) - (1 << 16))
    for kind in (IovaDomain, SwiotlbPool, FreeSpace, BySize, FreeRuns, Bitmap):
        monkeypatch.setattr(kind, "copy", no_copy)
    monkeypatch.setattr("copy.deepcopy", no_copy)
    outcome = replay(workload, find_design(name), plan, knobs)
    assert outcome.ledger.gained.total() + outcome.ledger.failed.total() >= 38


def test_more_probes_than_can_be_tried_are_refused(trace_of, monkeypatch):
    monkeypatch.setattr("swiommu.replay.engine._PATIENCE", 60)
    log = Log()
    log.say("dma_alloc: nvme0 dir=BIDIRECTIONAL dma_addr=1000 size=33554432 virt_addr=1 flags=GFP_KERNEL attrs=")
    log.say("dma_free: nvme0 dir=BIDIRECTIONAL dma_addr=1000 size=33554432 virt_addr=1 attrs=")
    for _ in range(5):
        failing_alloc(log, 32 << 20)
    workload = workload_of(trace_of(log.text()))
    for name in DEFAULT_DESIGNS:
        if not find_design(name).has_hardware:  # whose allocators are asked, which takes no memory
            assert replay(workload, find_design(name), machine_plan(workload)).ledger.failed.total() == 6
            continue
        with pytest.raises(InputError) as caught:
            replay(workload, find_design(name), machine_plan(workload))
        assert str(caught.value) == (
            f"{workload.path}:7: so many requests failed when recorded that they can't all be tried"
        )


def test_timers_of_many_devices_are_not_asked_at_each_step(trace_of):
    log = Log(step=0)  # nothing ever expires
    for at in range(500):
        log.map(at + 1 << 12, device=f"d{at}")
    for at in range(500):
        log.unmap(at + 1 << 12, device=f"d{at}")
    for at in range(MANY):
        log.map(at + 1 << 12, device="d0")
    workload = workload_of(trace_of(log.text()))
    begin = time.process_time()
    outcome = replay(workload, find_design("iommu-lazy"), machine_plan(workload))
    assert time.process_time() - begin < ENOUGH
    assert outcome.exposure.bytes == 4096  # each device's own, all still waiting


def test_calls_that_are_never_answered_are_forgotten(trace_of):
    log = Log()
    log.say("iova_init: (init_iova_domain+0x0/0x1) iovad=0xff granule=4096 start=0x1")
    for pid in range(1, MANY):
        log.say("iova_alloc: (alloc_iova_fast+0x0/0x378) iovad=0xff size=1 limit=0xfffff flush=0", pid=pid)
    for at in range(MANY):
        log.say(f"iova_free: (free_iova_fast+0x0/0x200) iovad=0xff pfn=0x{0xFFFFF - at:x} size=1")
    log.say("iova_alloc_ret: (iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast) ret=0xfffff", pid=1)
    begin = time.process_time()
    tally = verify_iova(trace_of(log.text()))
    assert time.process_time() - begin < ENOUGH
    assert (tally.total, dict(tally.undetermined)) == (0, {"too many calls were under way": 1})


def test_unmaps_among_many_allocators(trace_of):
    log = Log()
    for iovad in range(1, MANY):
        log.say(f"iova_alloc: (alloc_iova_fast+0x0/0x378) iovad=0x{iovad:x} size=1 limit=0xfffff flush=0")
        log.say("iova_alloc_ret: (iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast) ret=0xfffff")
    for _ in range(MANY):
        span = f"iova=0x{0x1000_0000:016x} - 0x{0x1000_1000:016x}"
        log.say(f"unmap: IOMMU: {span} size=4096 unmapped_size=4096")
    trace = trace_of(log.text())
    begin = time.process_time()
    assert len(read_calls(trace.calls)) == 2 * (MANY - 1)
    assert time.process_time() - begin < ENOUGH


def test_more_allocators_and_cpus_than_memory_holds(trace_of, monkeypatch):
    monkeypatch.setattr("swiommu.verify.iova.allocators._RECORDS", 3 * (8192 + 12))
    log = Log()
    for iovad in range(1, 6):
        log.say(f"iova_alloc: (alloc_iova_fast+0x0/0x378) iovad=0x{iovad:x} size=1 limit=0xfffff flush=0", cpu="8191")
        log.say("iova_alloc_ret: (iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast) ret=0xfffff", cpu="8191")
    tally = verify_iova(trace_of(log.text(), {"arch": "arm64"}))
    assert (tally.matched, dict(tally.undetermined)) == (
        3,
        {"there are more allocators and CPUs than can be followed": 2},
    )


def test_a_cpu_that_no_kernel_has_is_no_cpu(trace_of):
    log = Log()
    log.map(0x1000)
    log.say("dma_map_page: nvme0 dir=FROM_DEVICE dma_addr=2000 size=4096 phys_addr=2000 attrs=", cpu="8192")
    trace = trace_of(log.text())
    assert (len(trace.table), trace.account.unreadable) == (1, 1)
