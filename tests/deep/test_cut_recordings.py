"""The small form of cut_recordings.py: the first third of a bundled recording, every cut, every design."""

import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from swiommu.replay import PRESETS
from swiommu.trace import bundled_path

SPEC = importlib.util.spec_from_file_location("cut_recordings", Path(__file__).with_name("cut_recordings.py"))
cut_recordings = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cut_recordings)

RECORDING = "arm64-6.12-cam-cma64M-s81"


@pytest.fixture(scope="module")
def third(tmp_path_factory):
    whole, folder = bundled_path(RECORDING), tmp_path_factory.mktemp("third")
    lines = gzip.decompress(whole.read_bytes()).splitlines(keepends=True)
    (folder / f"{RECORDING}.trace.gz").write_bytes(gzip.compress(b"".join(lines[: len(lines) // 3])))
    facts = json.loads(whole.with_name(f"{RECORDING}.json").read_text())
    (folder / f"{RECORDING}.json").write_text(json.dumps({key: facts[key] for key in ("name", "kernel", "cma_area")}))
    return str(folder / f"{RECORDING}.trace.gz")


@pytest.mark.parametrize("cut", [10, 30, 60, cut_recordings.SHUFFLED])
def test_a_recording_without_its_beginning_or_its_order_is_answered(cut, third):
    case = cut_recordings.try_recording(third, cut, 0, tuple(PRESETS), with_random=False)
    assert case["outcome"] == "answered", case
    assert case["requests"] > 50
    assert case["mismatches"] == 0 or cut == cut_recordings.SHUFFLED


def test_what_is_cut_and_what_is_shuffled():
    lines = [b"# header\n", *(b" task-1 [000] ..... %d.%d: event:\n" % (at // 10, at % 10) for at in range(20))]
    assert cut_recordings.damaged(lines, 30, 0) == lines[6:]
    shuffled = cut_recordings.damaged(lines, cut_recordings.SHUFFLED, 0)
    assert shuffled != lines
    assert sorted(shuffled[1:11]) == lines[1:11]
    assert sorted(shuffled) == sorted(lines)
