"""The fuzz target in its short form; `--slow` runs a longer one, and the script itself a million cases."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("fuzz_trace", Path(__file__).with_name("fuzz_trace.py"))
fuzz_trace = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz_trace)


def test_a_thousand_cases(tmp_path):
    fuzz_trace.run(1_000, 1, tmp_path)


@pytest.mark.slow
def test_a_hundred_thousand_cases(tmp_path):
    fuzz_trace.run(100_000, 2, tmp_path)


def test_the_same_seed_makes_the_same_cases():
    one, other = fuzz_trace.random.Random(7), fuzz_trace.random.Random(7)
    assert [fuzz_trace.case(one) for _ in range(20)] == [fuzz_trace.case(other) for _ in range(20)]
