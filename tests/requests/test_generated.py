"""Generated workloads: reproducible, well formed, and answerable by every design."""

import hashlib
from functools import cache

import pytest

from swiommu.answers import compare
from swiommu.errors import InputError
from swiommu.requests import GENERATED, OpCode, RequestKind
from swiommu.requests.generated import generate, workload_names


@cache
def made(name):
    """With seed 1; nobody changes it."""
    return generate(name, 1)


def fingerprint(workload):
    rows = [(r.kind.value, r.device, r.size, r.mask, r.direction, r.pieces, r.time) for r in workload.requests]
    return hashlib.sha256(repr((rows, [tuple(map(int, op)) for op in workload.ops])).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", workload_names())
def test_the_seed_tells_all(name):
    assert fingerprint(generate(name, 1)) == fingerprint(made(name)) != fingerprint(generate(name, 2))


@pytest.mark.parametrize("name", workload_names())
def test_every_request_begins_once_and_ends_at_most_once_and_later(name):
    workload = made(name)
    assert workload.mode == GENERATED
    times = [time for _, _, time in workload.ops]
    assert times == sorted(times)
    begun, ended = set(), []
    for code, index, time in workload.ops:
        if code == OpCode.BEGIN:
            assert index not in begun
            begun.add(index)
            assert workload.requests[index].time == time
        else:
            assert code == OpCode.END
            assert index in begun
            ended.append(index)
    assert sorted(begun) == list(range(len(workload.requests)))
    assert len(ended) == len(set(ended))


@pytest.mark.parametrize("name", workload_names())
def test_pieces_lie_in_ram_and_are_the_size(name):
    workload = made(name)
    for request in workload.requests:
        assert request.size > 0
        if request.kind is RequestKind.MAP:
            assert sum(size for _, size in request.pieces) == request.size
            assert all(workload.system_map.is_ram(workload.system_map.space.at(phys)) for phys, _ in request.pieces)


def test_there_is_no_row_for_a_recording_that_nobody_made():
    answer = compare(generate("camera", 0), ["as-recorded", "cma-bitmap", "iommu-strict"])
    assert [row.name for row in answer.rows] == ["cma-bitmap", "iommu-strict"]
    assert answer.verdict.startswith("To lose nothing that was asked for, cma-bitmap needs ")
    assert answer.notes == ["a generated workload: nothing was recorded, so every request counts as served"]


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(InputError) as caught:
        generate("camara")
    assert str(caught.value) == ("no workload is named 'camara'; did you mean 'camera'?")


@pytest.mark.parametrize("name", workload_names())
def test_made_up_devices_are_on_pci(name):
    """For Linux tries bus addresses below 4 GiB first for such devices, and designs follow it."""
    assert {request.is_pci for request in made(name).requests} == {True}
