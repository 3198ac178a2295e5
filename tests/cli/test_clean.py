"""`pae clean` removes what no run leads to, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from card_runs import finished_run

from pae_framework.runs.locks import holding
from pae_framework.testing.pytest import Pae

OLD = "generator-000000000000"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with an earlier generator; temporary folders are inside the test's."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    run = finished_run(tmp_path / "runs" / "a")
    shutil.copytree((run / "generator").resolve(), run / "stages" / OLD)
    return run


def listing(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in files}


def leftovers(pae: Pae, *words: str) -> dict[str, bool]:
    document = pae("clean", "--json", *words).ok().json
    assert document["schema"] == "clean/1"
    return {Path(x["path"]).name: x["removed"] for x in document["leftovers"]}


def smoke(folder: Path, command: str = "pae run quickstart --smoke") -> Path:
    run = finished_run(folder)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "command": command}))
    return run


def test_without_yes_it_only_lists(pae: Pae, run: Path) -> None:
    before = listing(run)
    answer = pae("clean").ok()
    assert OLD in answer.out
    assert "--yes" in answer.err
    assert listing(run) == before


def test_with_yes_it_removes_the_earlier_stage_only(pae: Pae, run: Path) -> None:
    before = listing(run)
    assert leftovers(pae, "--yes") == {OLD: True}
    assert listing(run) == {path: x for path, x in before.items() if OLD not in path}
    assert leftovers(pae, "--yes") == {}


def test_what_is_no_stage_stays(pae: Pae, run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / "stages" / "encoder-1").symlink_to(tmp_path / "elsewhere")
    for name in ("data", "mine-1", "features"):
        (run / "stages" / name).mkdir(exist_ok=True)
    assert leftovers(pae, "--yes") == {OLD: True}
    assert (tmp_path / "elsewhere").is_dir()
    assert (run / "stages" / "mine-1").is_dir()


def test_a_stage_that_another_run_shares_stays(pae: Pae, run: Path) -> None:
    other = finished_run(run.parent / "b")
    info = json.loads((other / "run.json").read_text())
    for entry in info["plan"]:
        if entry["stage"] == "generator":
            entry["fingerprint"] = OLD.partition("-")[2]
    (other / "run.json").write_text(json.dumps({**info, "store": "../a/stages"}))
    shutil.rmtree(other / "stages")
    assert leftovers(pae, "--yes") == {}


@pytest.mark.parametrize("held", ["", "stages/generator-000000000000"])
def test_a_run_that_a_process_works_on_is_left_alone(pae: Pae, run: Path, held: str) -> None:
    with holding(run / held):
        assert leftovers(pae, "--yes") == {}
    assert (run / "stages" / OLD).is_dir()


def test_a_damaged_record_removes_nothing(pae: Pae, run: Path) -> None:
    (finished_run(run.parent / "b") / "run.json").write_text("{")
    assert "b/run.json" in pae("clean", "--yes").fails(1).err
    assert (run / "stages" / OLD).is_dir()


def test_smoke_runs_in_temporary_folders(pae: Pae, run: Path, tmp_path: Path) -> None:
    left = smoke(tmp_path / "temporary" / "pae-left-x")
    used = smoke(tmp_path / "temporary" / "pae-used-x")
    smoke(tmp_path / "temporary" / "pae-real-x", "pae run quickstart")
    smoke(tmp_path / "temporary" / "pae-kept-x", "pae run quickstart --smoke --run-dir pae-kept-x")
    smoke(tmp_path / "temporary" / "others")
    with holding(used):
        assert leftovers(pae, "--yes") == {OLD: True, left.name: True}
    assert {path.name for path in (tmp_path / "temporary").iterdir()} == {
        *("pae-used-x", "pae-real-x", "pae-kept-x", "others"),
    }


def test_nothing_to_remove(pae: Pae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = pae("clean").ok()
    assert answer.out == ""
    assert "runs" in answer.err
