"""Sizes and counts in words, and text from outside that can't drive a terminal; nobody makes such words elsewhere."""

import time
from pathlib import Path

import pytest

from swiommu.words import clean, counted, did_you_mean, mib

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0"),
        (1, "1 KiB"),
        (4096, "4 KiB"),
        (MIB - 4096, "1020 KiB"),
        (MIB - 1, "1.0 MiB"),
        (MIB, "1 MiB"),
        (MIB + MIB // 2, "1.5 MiB"),
        (100 * MIB - 1, "100 MiB"),
        (158 * MIB, "158 MiB"),
        (5000 * MIB, "5,000 MiB"),
    ],
)
def test_sizes(size, said):
    assert mib(size) == said


def test_counted():
    assert [counted(n, "unmap") for n in (0, 1, 2, 1000)] == ["0 unmaps", "1 unmap", "2 unmaps", "1,000 unmaps"]


@pytest.mark.parametrize(
    ("text", "options", "shown"),
    [
        ("", {}, ""),
        ("vivid.0 é", {}, "vivid.0 é"),
        ("a\x1b[2J\tb\x7f\x9b", {}, "a?[2J?b??"),
        ("a\u202eb\u200b\ud800", {}, "a?b??"),
        ("a\nb\tc", {"keep": "\n"}, "a\nb?c"),
        ("x" * 200, {"most": 200}, "x" * 200),
        ("x" * 201, {"most": 200}, "x" * 199 + "…"),
        ("\x1b" * 9, {"most": 3}, "??…"),
    ],
)
def test_text_from_outside_is_cleaned(text, options, shown):
    assert clean(text, **options) == shown


def test_nobody_cleans_text_in_a_way_of_his_own():
    package = Path(__file__).parents[1] / "swiommu"
    own = [path.name for path in package.rglob("*.py") if '"?" for char' in path.read_text(encoding="utf-8")]
    assert own == ["words.py"]


def test_a_near_name_and_none():
    assert did_you_mean("flsuh", ["flush", "pool"]) == "did you mean 'flush'?"
    assert did_you_mean("zzz", iter(["flush", ""])) == "there are flush, ''"
    begin = time.process_time()
    assert did_you_mean("z" * 1_000_000, ["flush"]) == "there are flush"
    assert time.process_time() - begin < 1
