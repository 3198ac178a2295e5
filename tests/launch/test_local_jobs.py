"""`pae run --on local` and `--on debug`, which need no Slurm."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from chain_helpers import pae as in_process
from finished_run import RECIPE, Finished, metrics_table, pae

from pae_framework.launch.executors import Executor
from pae_framework.launch.job import SweepJob, _OwnJob
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.launch.submission import PlannedJob
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.job_status import process_runs
from pae_framework.runs.jobs import RunJobs
from pae_framework.system.console import PlainConsole

LAST = ("--again", "report")
PREPARED = (
    "launch.executor=local",
    "launch.setup=['# a comment', 'false', '[[ a == a ]] && echo prepared']",
)


@pytest.fixture
def folder(finished: Finished, tmp_path: Path) -> Path:
    shutil.copytree(finished.folder / "run", tmp_path / "run", symlinks=True)
    return tmp_path


def state(folder: Path) -> str | None:
    """What the report's record says; None while the stage begins anew."""
    try:
        content = json.loads((folder / "run/report/stage.json").read_bytes())
    except FileNotFoundError:
        return None
    return str(content["state"])


def test_debug_runs_in_this_process_and_shows_the_results(
    folder: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str | Path] = ["run", RECIPE, "--run-dir", "run", *LAST, "--on", "debug"]
    result = pae(words, folder, monkeypatch).ok()
    assert state(folder) == "done"
    _, metric, table = result.out.partition("metric ")  # after the log of the job
    assert metrics_table(metric + table) == finished.expected["run"]
    (job,) = RunJobs(folder / "run").submitted
    assert (job.stage, job.executor) == ("report", "debug")


def test_local_returns_at_once_and_runs_in_processes_of_its_own(folder: Path) -> None:
    words: list[str | Path] = ["run", RECIPE, "--run-dir", "run", *PREPARED]
    in_process(*words, *LAST, cwd=folder).ok()
    jobs = RunJobs(folder / "run")
    (job,) = jobs.submitted
    assert process_runs(job) or state(folder) == "done"
    again = in_process(*words, cwd=folder).ok()
    assert f"job {job.id} already" in again.err or state(folder) == "done"
    assert len(jobs.submitted) == 1

    deadline = time.monotonic() + 150
    while state(folder) != "done":
        assert time.monotonic() < deadline, jobs.log(job.id).read_text(encoding="utf-8")
        time.sleep(0.2)
    log = jobs.log(job.id).read_text(encoding="utf-8")
    assert log.splitlines()[0] == "prepared"
    assert "report     done" in log
    (start,) = jobs.starts(job.folder)
    assert (start.job, start.changes) == (job.id, [])


# --- sweeps ---------------------------------------------------------------------------------------

SWEEP = "sweep={seeds: [0], variants: {a: {}, b: {tokenizer.train.steps: 3}}}"
SHORT = """\
pae: 1
extends: quickstart
name: short
data: {image_size: 16}
runtime: {threads: 1, device: cpu}
extractor: null
tokenizer:
  encoder: {width: 48, depth: 1, train: {steps: 2, batch_size: 8, warmup_steps: 1}}
  bottleneck: {channels: 4}
  decoder: {width: 48, depth: 1}
  refinement: null
  regularizers: null
  reconstruction: {perceptual: null}
  train: {steps: 2, batch_size: 8, warmup_steps: 1}
generator: null
sample: null
evaluate: null
"""


def test_the_job_of_a_sweep_has_the_recipe_and_the_overrides_of_its_user(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Any] = []
    given: list[LoadedRecipe] = []

    def sent(executor: Executor, job: PlannedJob, handed: list[Any]) -> list[str]:
        works.extend(handed)
        return ["1"]

    monkeypatch.setattr(Executor, "_sent_local", sent)
    overrides = (SWEEP, "seed=5")
    options = RunOptions(run_dir=tmp_path / "run", on="local")
    run_recipe(load_recipe(tiny_recipe, overrides), options, PlainConsole())
    (job,) = works
    assert isinstance(job, SweepJob)
    monkeypatch.setattr(
        "pae_framework.launch.job.run_sweep", lambda loaded, *rest: given.append(loaded)
    )
    job.work(_OwnJob("1", 0, "local"), PlainConsole())
    (loaded,) = given
    assert loaded.overrides == overrides
    assert loaded.text == tiny_recipe.read_text(encoding="utf-8")
    assert loaded.recipe == load_recipe(tiny_recipe, overrides).recipe


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "debug"])
def test_of_a_sweep_in_one_job_a_failing_member_fails_alone(tmp_path: Path, executor: str) -> None:
    (tmp_path / "short.yaml").write_text(SHORT, encoding="utf-8")
    sweep = "sweep={seeds: [0], variants: {a: {}, b: {tokenizer.train.lr: 100.0}}}"
    words = ("run", "short.yaml", sweep, "--run-dir", "run", "--on", executor)
    ended = in_process(*words, cwd=tmp_path)
    assert ended.code == (0 if executor == "local" else 1)
    if executor == "local":
        shown = in_process("logs", "run", "--follow", cwd=tmp_path).ok().out
        assert "members of the sweep failed: b-seed0" in shown
    rows = in_process("status", "run", "--json", cwd=tmp_path).ok().json["runs"]
    states = {member: [row["state"] for row in stages] for member, stages in rows.items()}
    assert states == {
        "a-seed0": ["done", "done", "done"],
        "b-seed0": ["done", "failed", "pending"],
    }
