"""What one `dma_map_single` enters: packages only downwards, and few functions."""

import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import swiommu
from swiommu.address import BusSpace, PhysSpace
from swiommu.dma import DmaDevice, DmaDirection, IommuDma
from swiommu.iommu import PagedDomain
from swiommu.layer import Memory, Node
from swiommu.memory import Frames, SparseRam

PACKAGE = Path(swiommu.__file__).parent
CALLS, FILES = 60, 21  # 119 in 27 files before a domain was made of parts; 21 are what a map is about, one idea each


def floors():
    """Each package or module of the contract by name: how high it is above the ground."""
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("the contract of imports is in no installed package")
    contracts = tomllib.loads(pyproject.read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    return {
        name.strip().removeprefix("swiommu."): height
        for height, layer in enumerate(reversed(layers))
        for name in layer.split(":")
    }


def own(frame):
    """The file of a frame of ours, beside the package; None for others."""
    file = frame.f_code.co_filename
    return str(Path(file).relative_to(PACKAGE)) if file.startswith(f"{PACKAGE}/") else None


def traced(call):
    """Every call of a function of ours while ``call`` runs: (file of the caller, file, name)."""
    calls = []

    def trace(frame, event, _argument):
        if event == "call" and (file := own(frame)):
            back = frame.f_back
            while back is not None and own(back) in {None, "locking.py"}:  # a decorator is no caller
                back = back.f_back
            calls.append((None if back is None else own(back), file, frame.f_code.co_qualname))

    sys.setprofile(trace)
    try:
        call()
    finally:
        sys.setprofile(None)
    return calls


@pytest.fixture(scope="module")
def calls():
    """Those of a mapping of a packet whose tables stand already."""
    ram = SparseRam(PhysSpace("ram", width=40))
    frames = Frames(ram.space.at(0x4000_0000), 16 << 20)
    memory = Node(Memory("ram", ram))
    domain = PagedDomain(BusSpace("nic", width=32), frames=frames, output_space=ram.space, memory=memory)
    device = DmaDevice("nic", IommuDma(domain, ram))
    packet = ram.space.at(0x5000_0200)
    for _ in range(3):
        device.dma_map_single(packet, 1500, DmaDirection.TO_DEVICE)
    return traced(lambda: device.dma_map_single(packet, 1500, DmaDirection.TO_DEVICE))


def test_packages_are_entered_downwards_only(calls):
    heights = floors()

    def package(file):
        return next(part for part in (file.split("/")[0].removesuffix(".py"),) if part in heights)

    upwards = [
        f"{caller} calls {name} of {file}"
        for caller, file, name in calls
        if caller is not None and heights[package(file)] > heights[package(caller)]
    ]
    assert upwards == []


def test_one_mapping_costs_few_calls(calls):
    names = Counter(f"{file} {name}" for _, file, name in calls)
    files = sorted({file for _, file, _ in calls})
    assert len(calls) <= CALLS, names.most_common()
    assert len(files) <= FILES, files
