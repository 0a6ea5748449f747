"""The small form of cut_recordings.py: one bundled recording, every cut, every design."""

import importlib.util
from pathlib import Path

import pytest

from swiommu.replay import PRESETS
from swiommu.trace import bundled_path

SPEC = importlib.util.spec_from_file_location("cut_recordings", Path(__file__).with_name("cut_recordings.py"))
cut_recordings = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cut_recordings)

RECORDING = "arm64-6.12-cam-cma64M-s81"


@pytest.mark.parametrize("cut", [10, 30, 60, cut_recordings.SHUFFLED])
def test_a_recording_without_its_beginning_or_its_order_is_answered(cut):
    case = cut_recordings.try_recording(str(bundled_path(RECORDING)), cut, 0, tuple(PRESETS))
    assert case["outcome"] == "answered", case
    assert case["requests"] > 200


def test_what_is_cut_and_what_is_shuffled():
    lines = [b"# header\n", *(b" task-1 [000] ..... %d.%d: event:\n" % (at // 10, at % 10) for at in range(20))]
    assert cut_recordings.damaged(lines, 30, 0) == [lines[0], *lines[7:]]
    shuffled = cut_recordings.damaged(lines, cut_recordings.SHUFFLED, 0)
    assert shuffled != lines
    assert sorted(shuffled[1:11]) == lines[1:11]
    assert sorted(shuffled) == sorted(lines)
