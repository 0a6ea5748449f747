"""The smallest memory that loses nothing: the search against trying everything, and what is known of a recording."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.replay import Knobs, bytes_needed, find_design, loses_nothing, need, plan_of_size
from swiommu.replay.engine import nothing_is_lost
from swiommu.replay.memory_plan import STEP
from swiommu.replay.need import least_bytes, smallest
from swiommu.requests import workload_of
from swiommu.trace import read_trace

MIB = 1 << 20


class Asked:
    """A predicate over steps that counts how often it was asked."""

    def __init__(self, says):
        self.says, self.sizes = says, []

    def __call__(self, size):
        assert size % STEP == 0
        self.sizes.append(size)
        return self.says(size // STEP)


@given(low=st.integers(1, 300), enough=st.integers(1, 5000), more=st.integers(0, 5000))
def test_a_monotone_need_is_found_exactly(low, enough, more):
    asked = Asked(lambda step: step >= enough)
    found = smallest(asked, low * STEP, (max(low, enough) + more) * STEP)
    assert found == max(low, enough) * STEP
    assert len(asked.sizes) <= 64 + 2 * 13 + 1


@given(seed=st.integers(0, 1 << 32), low=st.integers(1, 100), ceiling=st.integers(100, 400))
def test_a_need_that_is_not_monotone(seed, low, ceiling):
    """Exact within 64 steps; beyond, it suffices and two MiB less do not."""
    randomly = random.Random(seed)
    likely = randomly.choice([0.01, 0.1, 0.5])
    good = {step for step in range(low, ceiling) if randomly.random() < likely * step / ceiling} | {ceiling}
    found = smallest(Asked(good.__contains__), low * STEP, ceiling * STEP) // STEP
    if min(good) < low + 64:
        assert found == min(good)
    else:
        assert found in good
        assert found - 1 not in good


def test_a_low_that_reaches_the_ceiling_needs_the_ceiling():
    assert smallest(Asked(lambda step: step == 9), 9 * STEP, 9 * STEP) == 9 * STEP


# -- workloads --------------------------------------------------------------------------------------------------------


def test_without_an_allocation_no_memory_is_needed(make_request, make_workload):
    workload = make_workload([make_request(0, "MAP")], [(1, 0, 0)])
    need = bytes_needed(workload, find_design("cma-bitmap"))
    assert (need.bytes, need.why) == (None, "the trace has no ALLOC, so no memory for data is needed")


def test_what_memory_does_not_cure_is_said(make_request, make_workload):
    workload = make_workload([make_request(0, mask=0xFFFF)], [(1, 0, 0)])
    need = bytes_needed(workload, find_design("cma-bitmap"))
    assert need.bytes is None
    assert need.why == "requests are lost at any size up to 1024 MiB: memory is not what they lack"


@pytest.mark.parametrize(
    ("maps", "words"), [(1, "1 MAP is lost at any size: it "), (2, "2 MAPs are lost at any size: all ")]
)
def test_maps_that_no_memory_brings_back_are_counted(maps, words, make_request, make_workload):
    requests = [make_request(number, "MAP", pieces=((1 << 40, 4096),)) for number in range(maps)]
    requests.append(make_request(maps))
    workload = make_workload(requests, [(1, number, 0) for number in range(maps + 1)])
    assert bytes_needed(workload, find_design("cma-bitmap")).why.startswith(words)


@pytest.mark.parametrize("name", ["carveout-best-fit", "cma-bitmap", "software-iommu", "iommu-strict"])
def test_a_censored_request_needs_nothing(name, make_request, make_workload):
    requests = [make_request(0, size=MIB), make_request(1, size=500 * MIB, censored=True)]
    workload = make_workload(requests, [(1, 0, 0), (1, 1, 0), (2, 0, 1)])
    assert bytes_needed(workload, find_design(name)).bytes == 2 * MIB


def test_tables_are_of_the_memory_that_an_iommu_needs(make_request, make_workload):
    """Two MiB of data leave no page for the tables."""
    workload = make_workload([make_request(0, size=2 * MIB)], [(1, 0, 0)])
    assert bytes_needed(workload, find_design("cma-bitmap")).bytes == 2 * MIB
    assert bytes_needed(workload, find_design("iommu-strict")).bytes == 4 * MIB


def test_the_fullest_moment_of_a_run_in_plenty_is_not_beyond_the_need():
    less_is_not_enough(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")), find_design("iommu-strict"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iommu-strict", "iommu-lazy"])
def test_the_fullest_moment_is_never_beyond_the_need(name, trace_path, recording):
    less_is_not_enough(recording(trace_path)[1], find_design(name))


def less_is_not_enough(workload, design, knobs=None):
    found = bytes_needed(workload, design, knobs).bytes
    if found is not None and found > least_bytes(workload, design):
        assert not loses_nothing(workload, design, plan_of_size(workload, found - STEP), knobs)


def test_single_frames_need_no_more_trials_than_their_number_tells(make_request, make_workload, monkeypatch):
    """However small the memory, a single frame is the smallest page: the fullest moment in plenty is the need."""
    requests = [make_request(index, size=3 * MIB) for index in range(8)]
    workload = make_workload(requests, [(1, index, 0) for index in range(8)])
    runs = []
    monkeypatch.setattr(need, "nothing_is_lost", lambda *all_of: runs.append(0) or nothing_is_lost(*all_of))
    knobs = Knobs(frames="random", seed=3)
    assert bytes_needed(workload, find_design("iommu-strict"), knobs).bytes == 26 * MIB
    assert len(runs) == 2
    less_is_not_enough(workload, find_design("iommu-strict"), knobs)


def test_what_random_frames_tear_is_searched_for_in_few_trials(make_request, make_workload, monkeypatch):
    """Memory of an IOMMU's own device is one block, which single frames leave room for only in plenty."""
    requests = [make_request(0, size=8 * MIB), make_request(1, size=2 * MIB, is_iommu=True)]
    workload = make_workload(requests, [(1, 0, 0), (2, 1, 0)])
    runs = []
    monkeypatch.setattr(need, "nothing_is_lost", lambda *all_of: runs.append(0) or nothing_is_lost(*all_of))
    knobs, design = Knobs(frames="random", seed=1), find_design("iommu-strict")
    found = bytes_needed(workload, design, knobs).bytes
    assert len(runs) < 16
    assert loses_nothing(workload, design, plan_of_size(workload, found), knobs)
    assert not loses_nothing(workload, design, plan_of_size(workload, found - STEP), knobs)


def test_many_tables_are_not_searched_for_step_by_step(make_request, make_workload, monkeypatch):
    """Each of many devices has tables of its own: far above the peak of data."""
    requests = [make_request(index, device=f"d{index}") for index in range(400)]
    workload = make_workload(requests, [(1, index, 0) for index in range(400)])
    runs = []
    monkeypatch.setattr(need, "nothing_is_lost", lambda *all_of: runs.append(0) or nothing_is_lost(*all_of))
    assert bytes_needed(workload, find_design("iommu-strict")).bytes == 8 * MIB
    assert len(runs) == 2


# -- a recording ------------------------------------------------------------------------------------------------------


@pytest.fixture
def camera(request, recording):
    """The workload of the camera recording over 128 MiB, where the folder has it."""
    folder = request.config.getoption("--trace-dir")
    path = next(folder.rglob("arm64-6.12-cam-cma128M-s83.trace.gz"), None)
    if path is None:
        pytest.skip(f"{folder} has no arm64-6.12-cam-cma128M-s83")
    return recording(path)[1]


@pytest.mark.parametrize(
    ("name", "mib"), [("carveout-best-fit", 158), ("cma-bitmap", 154), ("software-iommu", 154), ("iommu-strict", 146)]
)
def test_what_the_designs_need_for_the_cameras(name, mib, camera):
    """Known from a dry run with other programs: best fit about 158, the bitmap about 152, an IOMMU about 146."""
    design = find_design(name)
    assert bytes_needed(camera, design).bytes == mib * MIB
    assert loses_nothing(camera, design, plan_of_size(camera, mib * MIB))
    assert not loses_nothing(camera, design, plan_of_size(camera, (mib - 2) * MIB))
