"""What the tests of the replay share: workloads made by hand."""

import random

import pytest

from swiommu.profile import DEFAULT_PROFILE
from swiommu.requests import Area, Occupancy, OpCode, Request, RequestKind, Served, Workload

PAGE = 4096


# -- workloads made by hand -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_request():
    def make(index, kind="ALLOC", size=PAGE, **facts):
        facts = {"device": "cam", "time": 0, "line": index + 1, "mask": 0xFFFF_FFFF} | facts
        facts = {"translated": False, "censored": False, "gfp": "GFP_KERNEL", "group": facts["device"]} | facts
        if kind == "MAP" and "pieces" not in facts:
            facts["pieces"] = ((0x8000_0000 + index * 0x10_0000, size),)
        return Request(index=index, kind=RequestKind(kind), size=size, **facts)

    return make


@pytest.fixture(scope="session")
def make_workload():
    """Requests and operations (code, index, time) -> a workload; the area is 1024 pages at 1 GiB unless told."""

    def make(requests, ops, *, area=Area(0x40000, 1024, ()), occupancies=(), served=None, **facts):  # noqa: B008
        times = [time for _, _, time in ops] or [0]
        facts = {"start_time": min(times), "stop_time": max(times), "profile": DEFAULT_PROFILE} | facts
        facts = {"mode": "direct", "has_dma_events": True, "page_size": PAGE, "system_map": None} | facts
        served = served or [Served() for _ in requests]
        ops = [(OpCode(code), index, time) for code, index, time in ops]
        return Workload(
            name="made", requests=requests, served=served, ops=ops, occupancies=occupancies, area=area, **facts
        )

    return make


# -- random workloads --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def random_workload(make_request, make_workload):
    """A seed and a number of steps -> requests that come and go, some censored, some with small masks."""

    def make(seed, steps, *, base=0x4_0000, pages=512, users=False):
        randomly = random.Random(seed)
        area = Area(base, pages, randomly.choice([(), ((0, 16),), ((8, 3), (100, 40))]))
        requests, served, ops, live, occupancies, background = [], [], [], [], [], []
        free_extents = list(area.start_extents)
        time = 0
        for _ in range(steps):
            time += randomly.choice([0, 1, 5, 100, 100, -3])
            what = randomly.random()
            if what < 0.35 and live:
                ops.append((OpCode.END, live.pop(randomly.randrange(len(live))), time))
            elif what < 0.4:
                occupancies.append(Occupancy(0, randomly.choice([1, 5, 64]), randomly.randrange(4)))
                background.append(len(occupancies) - 1)
                ops.append((OpCode.OCCUPY, background[-1], time))
            elif what < 0.44 and background:
                ops.append((OpCode.VACATE, background.pop(), time))
            elif what < 0.46 and free_extents:
                offset, count = free_extents.pop()
                occupancies.append(Occupancy(base + offset, count, 0, was_start_extent=True))
                ops.append((OpCode.VACATE, len(occupancies) - 1, time))
            else:
                requests.append(random_request(randomly, make_request, len(requests), time))
                served.append(random_served(randomly, base, pages))
                ops.append((OpCode.BEGIN, requests[-1].index, time))
                if not requests[-1].censored:
                    live.append(requests[-1].index)
        return make_workload(requests, ops, area=area, occupancies=occupancies, served=served)

    return make


def random_request(randomly, make_request, index, time):
    kind = randomly.choice(["ALLOC", "ALLOC", "ALLOC", "MAP"])
    pages = randomly.choice([1, 1, 2, 3, 7, 8, 30, 64, 200, 1500])
    device = randomly.choice(["cam", "eth", "nvme"])
    facts = {
        "device": device,
        "group": "one" if device == "nvme" else device,
        "time": time,
        "mask": randomly.choice([0xFFFF_FFFF, 0xFFFF_FFFF, 0x4008_0FFF, 0x3FFF_FFFF]),
        "censored": randomly.random() < 0.2,
        "gfp": randomly.choice(["GFP_KERNEL", "GFP_ATOMIC"]),
        "translated": device == "eth",
        "direction": randomly.choice(["TO_DEVICE", "FROM_DEVICE"]),
    }
    if kind == "MAP":
        first = 0x2000_0000 + randomly.randrange(64) * PAGE
        pieces = [(first + n * 0x40_0000, randomly.choice([PAGE, 3 * PAGE])) for n in range(randomly.randrange(1, 4))]
        return make_request(index, "MAP", sum(size for _, size in pieces), pieces=tuple(pieces), **facts)
    return make_request(index, "ALLOC", pages * PAGE - randomly.choice([0, 0, 100]), **facts)


def random_served(randomly, base, pages):
    return Served(busy_pfns=tuple(base + randomly.randrange(pages) for _ in range(randomly.choice([0, 0, 0, 2]))))
