"""Files that the program writes are whole: written beside the old one and renamed, or not at all."""

import os
import resource
import stat
from functools import partial
from pathlib import Path

import pytest

from swiommu.cli import common
from swiommu.cli.common import write_page

DRAW = ("explain", "translate", "nested", "0x10010", "--svg", "walk.svg")
LIMIT = 2048  # bytes; the drawing is longer

small_files = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


def test_a_disk_that_fills_up_leaves_the_old_file_and_no_half_one(swiommu, tmp_path):
    (tmp_path / "walk.svg").write_text("the old one")
    run = swiommu(*DRAW, preexec_fn=small_files)
    assert (run.returncode, run.stderr.decode()) == (3, "swiommu: walk.svg can't be written: File too large\n")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("walk.svg", "the old one")]


def test_where_there_was_no_file_there_is_none_after_an_error(swiommu, tmp_path):
    assert swiommu(*DRAW, preexec_fn=small_files).returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_a_report_on_a_full_disk(swiommu, tmp_path):
    (tmp_path / "report.html").write_text("the old one")
    how = "--design", "cma-bitmap", "--no-need", "--plotlyjs", "cdn", "--html", "report.html"
    run = swiommu("compare", *how, preexec_fn=small_files)
    assert (run.returncode, run.stderr.decode()) == (3, "swiommu: report.html can't be written: File too large\n")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "the old one")]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupt_while_it_is_written(stop, tmp_path, monkeypatch):
    (tmp_path / "page").write_text("the old one")

    def fsync(_):
        raise stop

    monkeypatch.setattr(common.os, "fsync", fsync)
    with pytest.raises((KeyboardInterrupt, common._NotWritten)):
        write_page(tmp_path / "page", "the new one")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page", "the old one")]


def test_mode_and_link_stay_what_they_were(tmp_path):
    (tmp_path / "real").write_text("the old one")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    write_page(tmp_path / "link", "the new one")
    assert (tmp_path / "link").readlink() == Path("real")
    assert (tmp_path / "real").read_text() == "the new one"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_of_any_other(tmp_path):
    mask = os.umask(0o027)
    try:
        write_page(tmp_path / "page", "new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "page").stat().st_mode) == 0o640


def test_what_is_no_file_is_written_to(swiommu):
    run = swiommu(*DRAW[:-1], "/dev/stdout", "--json", process=True)
    assert run.returncode == 0
    assert b"<svg" in run.stdout
    assert b'"schema": "swiommu.explain.translate/1"' in run.stdout
