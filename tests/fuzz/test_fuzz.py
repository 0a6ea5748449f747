"""The fuzz target in its short form; `--slow` runs a longer one, and the script itself a million cases."""

import importlib.util
import signal
import sys
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
fuzz = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = fuzz  # dataclasses look for it there
SPEC.loader.exec_module(fuzz)


@pytest.fixture
def run(tmp_path):
    """The target, with what it does to this process taken back."""
    before = signal.getsignal(signal.SIGPROF)
    yield lambda cases, seed: fuzz.run(cases, seed, tmp_path)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_five_hundred_cases(run, seed):
    done = run(500, seed)
    assert done.escapes == {}
    assert sum(tally.answered for tally in done.tallies.values()) > 200


@pytest.mark.slow
def test_twenty_thousand_cases(run):
    assert run(20_000, 5).escapes == {}


def test_the_same_seed_makes_the_same_cases():
    one, other = ([fuzz.case_of(7, number).to_json() for number in range(20)] for _ in range(2))
    assert one == other
    assert one != [fuzz.case_of(8, number).to_json() for number in range(20)]


def test_what_escapes_is_found_and_made_smaller(run, monkeypatch):
    """A planted fault: a reader that stumbles over one word."""

    def stumble(folder, _options):
        if any(b"cma_release" in path.read_bytes() for path in folder.iterdir()):
            raise ZeroDivisionError

    share, make, _, others = fuzz.KINDS["trace"]
    monkeypatch.setitem(fuzz.KINDS, "trace", (share, make, stumble, others))
    done = run(300, 1)
    (escape,) = done.escapes.values()
    assert escape["times"] > 1
    lines = [line for text in escape["case"]["files"].values() for line in text]
    assert [line for line in lines if line] == [line for line in lines if "cma_release" in line]
