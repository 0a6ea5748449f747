"""Whether the bundled recordings, stacks and tables are answered as when digests.json was written; and the script."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("snapshot", Path(__file__).with_name("snapshot.py"))
snapshot = sys.modules["snapshot"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(snapshot)

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
HOW = "an answer changed: see the head of tests/snapshot/snapshot.py for how to look at it, then write the digests anew"


def digests(only):
    committed = json.loads(snapshot.DIGESTS.read_text(encoding="utf-8"))
    found = snapshot.quick_digests(only)
    return found, {name: committed.get(name) for name in found}


@pytest.mark.parametrize("only", ["arm64-6.12-cam-cma64M-s81", "workload-*", "stack-[cow]*", "table-*"])
def test_answers_are_those_of_the_digests(only):
    found, committed = digests(only)
    assert found
    assert found == committed, HOW


@pytest.mark.slow
def test_all_answers_are_those_of_the_digests():
    found, committed = digests("*")
    assert found == committed, HOW
    assert found.keys() == json.loads(snapshot.DIGESTS.read_text(encoding="utf-8")).keys()


def test_a_recording_that_is_refused_has_its_sentence(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "empty.trace").write_bytes(b"")
    snapshot.write(folder, tmp_path / "out", only="empty")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"empty.compare.json", "empty.verify.json", "snapshot.json"}
    found = json.loads((tmp_path / "out" / "empty.verify.json").read_text())
    assert found["runs"] == {
        "bare": {"answer": None, "status": 3, "stderr": ["swiommu: bare/empty.trace: is empty, not a trace"]},
        "verify": {"answer": None, "status": 3, "stderr": ["swiommu: empty.trace: is empty, not a trace"]},
    }
    assert all(json.loads((tmp_path / "out" / name).read_text()) for name in names)


def test_a_snapshot_is_gone_on_with_and_is_the_same_with_two_jobs(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert sorted(snapshot.write(snapshot.BUNDLED, one, quick=True, only="table-mock*")) == [
        "table-mock.explain.json",
        "table-mock64k.explain.json",
    ]
    (one / "table-mock.explain.json").unlink()
    assert list(snapshot.write(snapshot.BUNDLED, one, quick=True, only="table-mock*")) == ["table-mock.explain.json"]
    command = [sys.executable, snapshot.__file__, "write", snapshot.BUNDLED, two, "--quick", "--jobs", "2"]
    subprocess.run([*command, "--only", "table-mock*"], check=True, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in two.iterdir()
    }
    assert snapshot.compare_snapshots(one, two) == ([], 0)


def test_another_form_is_not_mixed_in(tmp_path):
    snapshot.write(snapshot.BUNDLED, tmp_path, quick=True, only="table-mock")
    with pytest.raises(SystemExit) as refused:
        snapshot.write(snapshot.BUNDLED, tmp_path, only="table-mock")
    assert refused.value.code == f"{tmp_path} was begun with another form: remove it, or write elsewhere"


@pytest.fixture
def two_snapshots(tmp_path):
    rows = [{"name": "cma-bitmap", "failed": 2, "why": {}}, {"name": "gcma", "failed": 0}]
    changed = [{"name": "gcma", "failed": 0}, {"name": "cma-bitmap", "failed": 3, "why": {"cost": "no price"}}]
    for folder, designs, text in (("old", rows, "a" * 300), ("new", changed, "a" * 250 + "b" * 50)):
        (tmp_path / folder).mkdir()
        for name in ("r1", "r2"):
            answer = {
                "designs": designs,
                "verdict": text,
                "extents": [0, 1, 2 if folder == "old" or name == "r2" else 3],
            }
            document = {"name": name, "verb": "compare", "runs": {"equal": {"status": 0, "answer": answer}}}
            (tmp_path / folder / f"{name}.compare.json").write_text(snapshot.text_of(document))
    (tmp_path / "old" / "gone.verify.json").write_text("{}")
    return tmp_path / "old", tmp_path / "new"


def test_what_changed_is_listed_by_path(two_snapshots):
    old, new = two_snapshots
    assert snapshot.compare_snapshots(old, new, each=1) == (
        [
            f"only in {old}: gone.verify.json",
            "compare answer.designs[cma-bitmap].failed: 2",
            "    r1 equal: 2 -> 3",
            "    and 1 more",
            "compare answer.designs[cma-bitmap].why.cost: 2",
            '    r1 equal: (absent) -> "no price"',
            "    and 1 more",
            "compare answer.extents[]: 1",
            "    r1 equal: 2 -> 3",
            "compare answer.verdict: 2",
            f'    r1 equal: ...{"a" * 80}" -> ...{"a" * 30}{"b" * 50}"',
            "    and 1 more",
        ],
        8,
    )


def test_what_was_expected_to_change_is_not_counted(two_snapshots, tmp_path, capsys, monkeypatch):
    old, new = two_snapshots
    (old / "gone.verify.json").unlink()
    globs = tmp_path / "expected"
    globs.write_text("# needs\n* compare equal.answer.designs*\n\n* verify *\n* compare *.verdict\n")
    arguments = ["snapshot.py", "diff", str(old), str(new), "--expect", str(globs)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ending:
        snapshot.main()
    assert ending.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "compare answer.extents[]: 1",
        "    r1 equal: 2 -> 3",
        "expected, but the same: * verify *",
    ]


def test_rows_without_names_and_of_other_lengths_are_compared_too():
    assert list(snapshot.differences({"a": [1, 2]}, {"a": [1]})) == [("a", [1, 2], [1])]
    assert list(snapshot.differences([{"x": 1}], [{"x": True}])) == [("[0].x", 1, True)]
    assert list(snapshot.differences([{"name": "a"}] * 2, [{"name": "a"}] * 2)) == []
