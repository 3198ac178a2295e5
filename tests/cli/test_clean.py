"""`pae clean` removes what no run leads to, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from card_runs import finished_run

from pae_framework.errors import RunError
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.canceling import Chosen
from pae_framework.runs.cleaning import find_leftovers, new_smoke_folder, remove
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.locks import holding
from pae_framework.runs.store_users import note_user, noted_users
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


def smoke(name: str) -> Path:
    """A finished run in a new temporary folder of a smoke run."""
    folder = new_smoke_folder(name)
    finished = finished_run(folder.with_name("finished"))
    for path in finished.iterdir():
        path.rename(folder / path.name)
    finished.rmdir()
    return folder


def sharing(path: Path, store: Path) -> Path:
    """A run whose generator is the earlier one of another run's stages."""
    run = finished_run(path)
    info = json.loads((run / "run.json").read_text())
    for entry in info["plan"]:
        if entry["stage"] == "generator":
            entry["fingerprint"] = OLD.partition("-")[2]
    info["store"] = os.path.relpath(store, run)
    (run / "run.json").write_text(json.dumps(info))
    for link in (path for path in run.iterdir() if path.is_symlink()):
        link.unlink()
    shutil.rmtree(run / "stages")
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


@pytest.mark.parametrize("place", ["b", "group/b", "group/deep/b", "sweep/members/b", "a/more/b"])
def test_a_stage_that_another_run_shares_stays(pae: Pae, run: Path, place: str) -> None:
    sharing(run.parent / place, run / "stages")
    assert leftovers(pae, "--yes") == {}


def test_a_stage_that_a_run_behind_a_link_shares_stays(pae: Pae, run: Path, tmp_path: Path) -> None:
    sharing(tmp_path / "scratch" / "b", run / "stages")
    (run.parent / "linked").symlink_to(tmp_path / "scratch")
    (run.parent / "round").symlink_to(run.parent)
    assert leftovers(pae, "--yes") == {}


def test_a_stage_that_a_run_elsewhere_shares_stays_until_that_run_is_gone(
    pae: Pae, run: Path, tmp_path: Path
) -> None:
    other = sharing(tmp_path / "elsewhere" / "b", run / "stages")
    note_user(run / "stages", other)
    assert leftovers(pae, "--yes") == {}
    shutil.rmtree(other)
    assert leftovers(pae, "--yes") == {OLD: True}


@pytest.mark.parametrize(
    ("place", "store", "noted"),
    [
        ("elsewhere/b", "runs/a/stages", True),
        ("runs/b", "runs/a/stages", True),
        ("runs/a", "runs/a/stages", False),
        ("runs/a/members/x", "runs/a/stages", False),
    ],
)
def test_a_run_leaves_a_note_in_the_stages_of_another(
    tmp_path: Path, place: str, store: str, noted: bool
) -> None:
    run = RunDirectory.at(tmp_path / place, tmp_path / store)
    for _ in range(2):
        run.write(load_recipe("quickstart"), [], "pae run", starts=True)
        assert list(noted_users(run.store)) == ([run.path] if noted else [])


def test_runs_in_groups_are_cleaned(pae: Pae, run: Path) -> None:
    moved = run.rename(run.parent / "moved")
    run.mkdir()
    moved.rename(run / "b")
    assert leftovers(pae, "--yes") == {OLD: True}


def test_a_stage_that_a_run_leads_to_by_now_stays(run: Path, tmp_path: Path) -> None:
    (found,) = find_leftovers(run.parent).found
    sharing(run.parent / "b", run / "stages")
    assert not remove(found, run.parent)
    assert (run / "stages" / OLD / "stage.json").is_file()


def test_an_interrupted_removal_leaves_no_finished_stage(
    pae: Pae, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    (found,) = find_leftovers(run.parent).found
    with monkeypatch.context() as patch:
        patch.setattr("pae_framework.runs.cleaning.shutil.rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            remove(found, run.parent)
    assert not (run / "stages" / OLD).exists()
    (rest,) = find_leftovers(run.parent).found
    shutil.copytree((run / "generator").resolve(), run / "stages" / OLD)
    assert remove(found, run.parent)
    assert not Path(rest.path).exists()
    assert leftovers(pae) == {}


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
    left, used, shared = smoke("left"), smoke("used"), smoke("shared")
    user = sharing(tmp_path / "elsewhere" / "b", shared / "stages")
    note_user(shared / "stages", user)
    shutil.copytree(shared, tmp_path / "temporary" / "pae-copied", symlinks=True)
    finished_run(tmp_path / "temporary" / "pae-mine")
    with holding(used):
        assert leftovers(pae, "--yes") == {OLD: True, left.name: True}
    assert {path.name for path in (tmp_path / "temporary").iterdir()} == {
        *(used.name, shared.name, "pae-copied", "pae-mine"),
    }


def test_smoke_runs_of_others_stay(pae: Pae, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = smoke("left")
    monkeypatch.setattr("os.getuid", lambda: left.stat().st_uid + 1)
    assert leftovers(pae) == {OLD: False}


def test_the_home_does_not_say_whose_a_smoke_run_is(
    pae: Pae, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = smoke("left")
    monkeypatch.setenv("HOME", "/nowhere")
    assert leftovers(pae) == {OLD: False, left.name: False}


def test_a_run_whose_jobs_are_unknown_is_skipped_and_told(
    pae: Pae, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = smoke("left")

    def jobs(path: Path) -> Chosen:
        if path == left:
            raise RunError("Slurm does not say it")
        return Chosen((), ())

    monkeypatch.setattr("pae_framework.runs.cleaning.unended_jobs", jobs)
    assert leftovers(pae, "--yes") == {OLD: True}
    assert left.is_dir()
    (skipped,) = pae("clean", "--json").ok().json["skipped"]
    assert skipped == {"path": str(left), "why": "Slurm does not say it"}
    assert str(left) in pae("clean").ok().err


def test_a_folder_that_is_none_is_refused(pae: Pae, run: Path) -> None:
    assert "nosuch" in pae("clean", "nosuch").fails(2).err
    pae("clean", str(run / "run.json")).fails(2)


def test_nothing_to_remove(pae: Pae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = pae("clean").ok()
    assert answer.out == ""
    assert "runs" in answer.err
