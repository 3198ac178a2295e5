"""``pae status``, ``logs`` and ``cancel`` on jobs of a real Slurm, whose work is a shell script."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from local_slurm import LocalSlurm

from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.jobs import RunJobs, SubmittedStage
from pae_framework.runs.planned import planned_stages
from pae_framework.testing.pytest import Pae

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


class SubmittedRun:
    """A run whose jobs are shell scripts."""

    def __init__(self, path: Path, recipe: Path, slurm: LocalSlurm):
        self.path, self.slurm, self.jobs = path, slurm, RunJobs(path)
        loaded = load_recipe(recipe, (), load_registry())
        directory = RunDirectory.at(path)
        stages = list(planned_stages(loaded, directory.store).values())
        directory.write(loaded, stages, "pae run tiny.yaml --on cluster", starts=True)
        self.jobs.folder.mkdir()

    def submit(self, stage: str, script: str, *options: str, after: tuple[str, ...] = ()) -> str:
        waits = ()
        if after:
            waits = (f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes")
        log = f"--output={self.jobs.folder.absolute()}/%j_0_log.out"
        named = ("--requeue", f"--job-name=pae-run-{stage}", log)
        job = self.slurm.submit(self.path, script, *named, *waits, *options)
        folder = RunDirectory.at(self.path).plan[stage].folder
        entry: dict[str, Any] = {"stage": stage, "folder": folder, "job": job}
        entry |= {"fingerprint": folder.rpartition("-")[2], "depends_on": list(after)}
        entry |= {"executor": "slurm", "profile": "cluster", "host": "here", "resources": {}}
        entry |= {"submitted": "2026-11-29T12:00:00+0000", "snapshot": "", "sources": {}}
        self.jobs.add([SubmittedStage.model_validate(entry)])
        return job


@pytest.fixture
def run(slurm: LocalSlurm, tmp_path: Path, tiny_recipe: Path) -> SubmittedRun:
    return SubmittedRun(tmp_path / "run", tiny_recipe, slurm)


def shown(pae: Pae, stage: str) -> dict[str, Any]:
    """What status says of the job of a stage."""
    (rows,) = pae("status", "run", "--json").ok().json["runs"].values()
    return next(row["job"] for row in rows if row["stage"] == stage)


def starts(log: str) -> list[str]:
    """The starts that a log tells of, beside what Slurm writes into it."""
    lines = log.splitlines()
    return [line.removeprefix("start ") for line in lines if line.startswith("start ")]


def test_status_at_each_moment(run: SubmittedRun, pae: Pae) -> None:
    slurm = run.slurm
    first = run.submit("tokenizer", "echo start ${SLURM_RESTART_COUNT-0}; sleep 300", "-N2")
    second = run.submit("generator", "true", after=(first,))
    slurm.wait_for(first, "RUNNING")
    job = shown(pae, "tokenizer")
    assert (job["state"], job["nodes"], job["ended"]) == ("RUNNING", "node[1-2]", False)
    assert f"waits for tokenizer (job {first})" in shown(pae, "generator")["text"]

    slurm.output("scontrol", "requeue", first)
    slurm.wait_for(first, "PENDING")
    job = shown(pae, "tokenizer")
    assert (job["state"], job["reason"], job["restarts"]) == ("PENDING", "BeginTime", 1)
    assert "requeued once, starts again at" in job["text"]
    slurm.go_on(first)
    slurm.wait_for(first, "RUNNING")
    slurm.until(lambda: starts(pae("logs", "run", "tokenizer").ok().out) == ["0", "1"])

    slurm.output("scancel", first)
    slurm.until(lambda: shown(pae, "generator")["ended"])
    assert shown(pae, "tokenizer")["text"].startswith("CANCELLED")
    slurm.until(lambda: "canceled by " in shown(pae, "tokenizer")["text"])
    assert shown(pae, "generator")["id"] == second
    assert f"tokenizer (job {first}) did not succeed" in shown(pae, "generator")["text"]


def test_jobs_that_fail(run: SubmittedRun, pae: Pae) -> None:
    run.submit("encoder", "exit 3")
    lost = ("--output", "/nowhere/log")
    run.submit("refine", "true", *lost)
    run.slurm.until(lambda: all(shown(pae, stage)["ended"] for stage in ("encoder", "refine")))
    assert shown(pae, "encoder")["state"] == "FAILED"
    assert "log cannot be written" in shown(pae, "refine")["text"]


def test_cancel_ends_the_jobs_of_the_run_alone(run: SubmittedRun, pae: Pae, tmp_path: Path) -> None:
    other = run.slurm.submit(tmp_path, "sleep 300")
    first = run.submit("tokenizer", "sleep 300")
    run.submit("generator", "true", after=(first,))
    run.slurm.wait_for(first, "RUNNING")

    pae("cancel", "run", "--yes").ok()

    run.slurm.until(lambda: all(shown(pae, s)["ended"] for s in ("tokenizer", "generator")))
    assert "pae cancel" in shown(pae, "tokenizer")["text"]
    assert run.slurm.state(other) in ("RUNNING", "PENDING")
    assert "nothing to cancel" in pae("cancel", "run").ok().out


def test_a_log_is_followed_over_a_requeue(run: SubmittedRun, tmp_path: Path) -> None:
    script = 'echo start ${SLURM_RESTART_COUNT-0}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 300'
    job = run.submit("tokenizer", script)
    words = [sys.executable, "-m", "pae_framework", "logs", "run", "--follow"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, env=os.environ, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "start 0\n"
        run.slurm.output("scontrol", "requeue", job)
        run.slurm.wait_for(job, "PENDING")
        time.sleep(6)  # it is followed while the job waits
        assert process.poll() is None
        run.slurm.output("scontrol", "update", f"JobId={job}", "StartTime=now")
        assert starts(process.stdout.read()) == ["1"]
        assert process.wait(timeout=60) == 0
