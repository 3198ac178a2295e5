"""`pae run --on local` and `--on debug`, which need no Slurm."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from chain_helpers import pae as in_process
from finished_run import RECIPE, Finished, pae

from pae_framework.runs.job_status import process_runs
from pae_framework.runs.jobs import RunJobs

LAST = ("--again", "report")
PREPARED = ("launch.executor=local", "launch.setup=[echo prepared]")


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
    assert [line for line in result.out.splitlines() if line[:1] == "│"] == finished.expected["run"]
    (job,) = RunJobs(folder / "run").submitted
    assert (job.stage, job.executor) == ("report", "debug")


def test_local_returns_at_once_and_runs_in_processes_of_its_own(folder: Path) -> None:
    words: list[str | Path] = ["run", RECIPE, "--run-dir", "run", *PREPARED]
    in_process(*words, *LAST, cwd=folder).ok()
    jobs = RunJobs(folder / "run")
    (job,) = jobs.submitted
    assert process_runs(job) or state(folder) == "done"
    again = in_process(*words, cwd=folder).ok()
    assert f"job {job.id} already" in again.out or state(folder) == "done"

    deadline = time.monotonic() + 150
    while state(folder) != "done":
        assert time.monotonic() < deadline, jobs.log(job.id).read_text(encoding="utf-8")
        time.sleep(0.2)
    log = jobs.log(job.id).read_text(encoding="utf-8")
    assert log.splitlines()[0] == "prepared"
    assert "report     done" in log
    (start,) = jobs.starts(job.folder)
    assert (start.job, start.changes) == (job.id, [])
