"""Run directories and the records of their stages."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pae_framework.errors import RunError, StoppedError, UsageError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import plan
from pae_framework.runs.record import StageRecord
from pae_framework.runs.status import run_status
from pae_framework.system.files import point, read_json, write_json


def test_a_new_or_empty_directory_is_free(tmp_path: Path):
    RunDirectory.at(tmp_path / "new").claim("a")
    RunDirectory.at(tmp_path).claim("a")
    assert list(tmp_path.iterdir()) == []  # claiming writes nothing


def test_a_run_of_the_same_recipe_may_resume(tmp_path: Path):
    write_json(tmp_path / "run.json", {"name": "a"})
    RunDirectory.at(tmp_path).claim("a")


def test_a_run_of_another_recipe_is_rejected(tmp_path: Path):
    write_json(tmp_path / "run.json", {"name": "a"})
    with pytest.raises(UsageError) as refused:
        RunDirectory.at(tmp_path).claim("b")
    assert all(fact in str(refused.value) for fact in ("'a'", "'b'", "--run-dir"))


def test_a_directory_with_other_files_is_rejected(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UsageError) as refused:
            RunDirectory.at(path).claim("a")
        assert all(fact in str(refused.value) for fact in (str(path), "--run-dir"))


def test_a_path_that_is_not_utf8_is_rejected(tmp_path: Path):
    # Rust, in which safetensors is written, has no such names.
    with pytest.raises(UsageError, match=r"UTF-8.*--run-dir"):
        RunDirectory.at(tmp_path / os.fsdecode(b"r\xff")).claim("a")


def test_names_that_are_not_utf8_survive_json(tmp_path: Path):
    names = {"classes": [os.fsdecode(b"c\xff"), "é"]}
    write_json(tmp_path / "a.json", names)
    assert read_json(tmp_path / "a.json") == names
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_the_error_names_the_directory_without_a_run(tmp_path: Path):
    with pytest.raises(UsageError) as refused:
        run_status(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(refused.value)


def test_two_processes_do_not_work_on_one_run(tmp_path: Path):
    with (
        RunDirectory.at(tmp_path).lock(),
        pytest.raises(RunError, match=re.escape(str(tmp_path))),
        RunDirectory.at(tmp_path).lock(),
    ):
        pass


def test_a_link_is_relative_and_can_be_moved(tmp_path: Path):
    (tmp_path / "stages" / "a-1").mkdir(parents=True)
    (tmp_path / "stages" / "a-2").mkdir()
    point(tmp_path / "a", tmp_path / "stages" / "a-1")
    assert str((tmp_path / "a").readlink()) == "stages/a-1"
    point(tmp_path / "a", tmp_path / "stages" / "a-2")
    assert str((tmp_path / "a").readlink()) == "stages/a-2"


def test_a_stage_goes_from_pending_over_running_to_done(tmp_path: Path):
    record = StageRecord(tmp_path / "encoder-1234")
    assert record.state == "pending"
    with record.lock(None), record.working({"extractor": "ab"}):
        assert StageRecord(record.path).state == "running"
    assert record.done
    assert record.info["stage"] == "encoder"
    assert record.info["fingerprint"] == "1234"
    assert record.info["inputs"] == {"extractor": "ab"}


def test_a_failed_stage_records_the_reason(tmp_path: Path):
    record = StageRecord(tmp_path / "encoder-1234")
    with pytest.raises(RuntimeError), record.lock(None), record.working({}):
        raise RuntimeError("no space left")
    assert record.state == "failed"
    assert record.info["error"] == "no space left"


def test_a_stage_whose_process_was_killed_is_stopped(tmp_path: Path):
    record = StageRecord(tmp_path / "encoder-1234")
    record.update(state="running")  # and no process holds its lock
    assert record.state == "stopped"


def test_working_time_adds_up_over_interruptions(tmp_path: Path):
    record = StageRecord(tmp_path / "encoder-1234")
    record.update(state="running", seconds=100.0)
    with record.working({}):
        pass
    assert 100.0 <= record.info["seconds"] < 101.0


def test_records_are_plain_json(tmp_path: Path):
    record = StageRecord(tmp_path / "encoder-1234")
    with record.working({}) as update_record:
        update_record(progress={"done": 3, "total": 9})
    text = (record.path / "stage.json").read_text(encoding="utf-8")
    assert json.loads(text)["progress"] == {"done": 3, "total": 9}


def test_a_sweep_is_not_a_run_of_the_same_name(tmp_path: Path):
    write_json(tmp_path / "run.json", {"name": "a", "members": ["x-seed0"]})
    RunDirectory.at(tmp_path).claim("a", sweep=True)
    with pytest.raises(UsageError, match=r"sweep.*'a'"):
        RunDirectory.at(tmp_path).claim("a")


def test_a_directory_with_only_a_lock_file_is_free(tmp_path: Path):
    (tmp_path / ".lock").touch()
    RunDirectory.at(tmp_path).claim("a")


def test_links_to_stages_of_an_earlier_plan_are_removed(tmp_path: Path, tiny_recipe: Path):
    registry = load_registry()
    loaded = load_recipe(tiny_recipe, (), registry)
    run = RunDirectory.at(tmp_path / "run")
    stages = plan(loaded.recipe, registry)
    run.write(loaded, stages, "pae run", starts=True)
    for stage in stages:
        run.stage(stage).path.mkdir(parents=True)
        run.link(stage)
    edited = load_recipe(tiny_recipe, ("sample.steps=3", "evaluate=null"), registry)
    run.write(edited, plan(edited.recipe, registry), "pae run", starts=False)
    left = {path.name for path in run.path.iterdir() if path.is_symlink()}
    kept = {stage.name for stage in stages} - {"sample", "evaluate", "report"}
    assert left == kept
    assert len(list(run.store.iterdir())) == len(stages)  # the results themselves are kept


def test_a_stage_of_an_earlier_plan_is_not_linked_again(tmp_path: Path, tiny_recipe: Path):
    """A job that was submitted before the recipe was edited may run its stage afterwards."""
    registry = load_registry()
    run, links = RunDirectory.at(tmp_path / "run"), []
    for overrides in ((), ("sample.steps=3",)):
        loaded = load_recipe(tiny_recipe, overrides, registry)
        stages = {stage.name: stage for stage in plan(loaded.recipe, registry)}
        run.write(loaded, list(stages.values()), "pae run", starts=True)
        links.append(stages["sample"])
    earlier, present = links
    for stage in (present, earlier):
        run.stage(stage).path.mkdir(parents=True)
        run.link(stage)
    assert (run.path / "sample").resolve().name == present.folder


def test_a_stage_stopped_on_request_has_not_failed(tmp_path: Path):
    record = StageRecord(tmp_path / "encoder-1234")
    with pytest.raises(StoppedError), record.working({}):
        raise StoppedError("stopped at step 3")
    assert record.state == "stopped"
    assert record.info["error"] is None
