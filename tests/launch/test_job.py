"""What a job does at its start and when it is stopped, with fakes of Slurm's commands."""

from __future__ import annotations

import pickle
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_slurm import FakeSlurm, profiles

from pae_framework.distributed.failure import Failure, RankError
from pae_framework.distributed.place import ADDRESS, VARIABLES
from pae_framework.errors import RunError, StoppedError
from pae_framework.launch.job import (
    REQUEUE,
    StageJob,
    _OwnJob,
    saved_progress,
    short_grace,
    starts_without_progress,
)
from pae_framework.launch.local import LocalLauncher
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.jobs import RunJobs, Start
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.system.stopping import STOP_SIGNALS, Interruption


class Submitted(NamedTuple):
    """The job of the first stage of a recipe, as submitit pickled it."""

    job: StageJob
    recipe: Path
    slurm: FakeSlurm


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Submitted:
    folder = tmp_path_factory.mktemp("submission")
    recipe = folder / "tiny.yaml"
    recipe.write_text(tiny_text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        profiles(folder, monkeypatch, max_restarts_without_progress=2)
        slurm = FakeSlurm(folder / "slurm", monkeypatch)
        options = RunOptions(run_dir=Path("run"), on="cluster", command="pae run tiny")
        run_recipe(load_recipe(recipe), options, PlainConsole())
    content = (folder / "run/jobs/100_submitted.pkl").read_bytes()
    job = pickle.loads(content).function  # it is our own
    assert isinstance(job, StageJob)
    return Submitted(job, recipe, slurm)


@pytest.fixture
def slurm(submission: Submitted, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Slurm, as the job's task sees it; it has not been told anything."""
    slurm = submission.slurm
    monkeypatch.setenv("PATH", slurm.path)
    (slurm.folder / "told").unlink(missing_ok=True)
    slurm.state("RUNNING")
    return slurm


@pytest.fixture
def submitted(
    submission: Submitted, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StageJob:
    """The job in the environment of its task, with a copy of its record."""
    variables = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "100",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in (*VARIABLES, *ADDRESS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    shutil.copytree(submission.job.jobs, tmp_path / "run")
    file = tmp_path / "run" / "jobs" / submission.job.snapshot.file.name
    snapshot = replace(submission.job.snapshot, file=file)
    store = tmp_path / "run" / "stages"
    return replace(submission.job, jobs=tmp_path / "run", snapshot=snapshot, store=store)


def stops(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the job's work end with an error."""

    def work(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(StageJob, "work", work)


def ended(job: StageJob) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        job()
    return end.value.code


def test_the_pickled_job_holds_no_state_of_the_code(submitted: StageJob) -> None:
    content = (submitted.jobs / "jobs" / "100_submitted.pkl").read_bytes()
    assert len(content) < 4000
    assert b"StageJob" in content
    assert submitted.checkpoint().function == submitted


@pytest.mark.parametrize(
    "error", [StoppedError("stopped at step 3", signal.SIGTERM), Interruption(signal.SIGUSR2)]
)
def test_a_job_that_runs_requeues_itself_when_it_is_told_to_stop(
    submitted: StageJob, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    stops(monkeypatch, error)
    assert ended(submitted) == 75
    assert slurm.told[-1] == "requeue 100"


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGUSR1"])
def test_a_job_that_is_told_to_stop_while_a_plugin_is_imported_requeues_itself(
    submitted: StageJob, slurm: FakeSlurm, tmp_path: Path, sent: str
) -> None:
    slow = tmp_path / f"slow_{sent.lower()}.py"
    kill = f"os.kill(os.getpid(), signal.{sent})"
    slow.write_text(f"import os, signal, time\n{kill}\ntime.sleep(60)\n", encoding="utf-8")
    snapshot = replace(submitted.snapshot, plugins=(slow,))
    numbers = [number for number in STOP_SIGNALS if number != signal.SIGINT]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        assert ended(replace(submitted, snapshot=snapshot)) == 75
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert slurm.told[-1] == "requeue 100"


@pytest.mark.parametrize(
    "state", ["COMPLETING", "CANCELLED", "PREEMPTED", "NODE_FAIL", "TIMEOUT", "PENDING"]
)
def test_a_job_that_slurm_ends_leaves_the_rest_to_slurm_and_says_how_to_go_on(
    submitted: StageJob,
    slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: str,
) -> None:
    slurm.state(state)
    stops(monkeypatch, StoppedError("stopped at step 3", signal.SIGTERM))
    assert ended(submitted) == 143
    assert not [line for line in slurm.told if line.startswith("requeue")]
    out = capsys.readouterr().out
    assert state in out
    assert "pae run tiny" in out


def test_a_canceled_job_is_not_requeued(
    submitted: StageJob, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunJobs(submitted.jobs).mark_canceled("100")
    stops(monkeypatch, StoppedError("stopped at step 3", signal.SIGTERM))
    assert ended(submitted) == 143
    assert slurm.told == []


def test_without_scontrol_the_job_says_that_it_must_be_submitted_again(
    submitted: StageJob,
    slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (slurm.folder / "bin" / "scontrol").unlink()
    monkeypatch.setenv("PATH", str(slurm.folder / "bin"))
    stops(monkeypatch, StoppedError("stopped at step 3", signal.SIGTERM))
    assert ended(submitted) == 143
    assert "scontrol" in capsys.readouterr().out


def test_without_scontrol_the_job_asks_its_script_to_requeue_it(
    submitted: StageJob, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(REQUEUE, str(tmp_path / "100.requeue"))
    stops(monkeypatch, StoppedError("stopped at step 3"))
    assert ended(submitted) == 75
    assert (tmp_path / "100.requeue").exists()


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_lost_process_may_mean_that_slurm_requeues_the_job(
    submitted: StageJob,
    slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_silent: bool,
) -> None:
    stops(monkeypatch, RankError(Failure(3, "node2", "does not answer", is_silent=is_silent)))
    assert ended(submitted) == 1
    out = capsys.readouterr().out
    assert ("if its node failed" in out) is is_silent
    assert "rank 3 on node2" in out


def test_signals_after_the_work_do_not_end_the_process(
    submitted: StageJob, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [number for number in STOP_SIGNALS if number != signal.SIGINT]
    before = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(StageJob, "work", lambda *arguments: None)
    try:
        submitted()
        # Python's own handlers would be taken back before the interpreter has ended.
        assert {signal.getsignal(number) for number in numbers} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_failed_job_is_not_requeued_and_names_the_stages_that_wait(
    submitted: StageJob,
    slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stops(monkeypatch, RunError("the loss is not finite"))
    assert ended(submitted) == RunError.exit_code
    assert slurm.told == []
    *_, waiting, error = capsys.readouterr().out.splitlines()
    assert "evaluate" in waiting
    assert error == "error: the loss is not finite"


def own() -> _OwnJob:
    return _OwnJob("100", 0, "slurm")


def test_a_recipe_that_was_changed_in_the_folder_of_jobs_is_refused(submitted: StageJob) -> None:
    file = submitted.snapshot.file
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(RunError, match=file.name):
        submitted.work(own(), PlainConsole())


def test_a_recipe_edited_while_the_job_waits_is_said_and_changes_nothing(
    submitted: StageJob, submission: Submitted, tmp_path: Path
) -> None:
    registry = load_recipe(submission.recipe).registry
    assert submitted.snapshot.changes(registry) == []
    before = submitted.snapshot.load(registry).recipe
    edited = tmp_path / "edited.yaml"
    edited.write_text(submission.recipe.read_text(encoding="utf-8") + "# edited", encoding="utf-8")
    snapshot = replace(submitted.snapshot, source=edited)
    (line,) = snapshot.changes(registry)
    assert str(edited) in line
    assert snapshot.load(registry).recipe == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sources": {"pae_framework": "0"}}, "pae_framework"),
        ({"versions": {"torch": "0.1"}}, "torch: 0.1"),
    ],
)
def test_other_code_and_versions_are_said(
    submitted: StageJob, submission: Submitted, changed: dict[str, Any], named: str
) -> None:
    registry = load_recipe(submission.recipe).registry
    before: dict[str, Any] = {
        key: {**getattr(submitted.snapshot, key), **value} for key, value in changed.items()
    }
    lines = replace(submitted.snapshot, **before).changes(registry)
    assert [line for line in lines if named in line] == lines
    assert len(lines) == 1


def test_a_stage_whose_plan_changed_must_be_submitted_again(submitted: StageJob) -> None:
    other = replace(submitted, stages={"extractor": "0" * 12})
    with pytest.raises(RunError, match="pae run tiny"):
        other.work(own(), PlainConsole())


def test_a_stage_does_not_start_before_those_that_it_reads(submitted: StageJob) -> None:
    ids = {stage.stage: stage.fingerprint for stage in RunJobs(submitted.jobs).submitted}
    early = replace(submitted, stages={"refine": ids["refine"]})
    with pytest.raises(RunError, match="encoder"):
        early.work(own(), PlainConsole())


# --- starts without progress ------------------------------------------------------------------


def past(progress: int, job: str = "100") -> Start:
    return Start(job=job, restarts=0, time="now", host="node1", progress=progress)


@pytest.mark.parametrize(
    ("earlier", "count"),
    [
        ([], 0),
        ([past(40)], 1),
        ([past(40), past(40), past(40)], 3),
        ([past(20), past(30)], 0),  # each start saved something
        ([past(40, "99"), past(40, "99")], 0),  # jobs of an earlier submission
    ],
)
def test_starts_count_only_if_nothing_was_saved_since(earlier: list[Start], count: int) -> None:
    assert starts_without_progress(earlier, past(40)) == count


def test_the_progress_of_a_training_is_its_newest_checkpoint(tmp_path: Path) -> None:
    assert saved_progress(tmp_path / "none", trains=True) == 0
    StageRecord(tmp_path).update(state="running")
    (tmp_path / "metrics.jsonl").touch()  # another start without a checkpoint may add files
    assert saved_progress(tmp_path, trains=True) == 0
    for step in (200, 1000):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00001200.new").mkdir()
    assert saved_progress(tmp_path, trains=True) == 1000


def test_the_progress_of_another_stage_is_the_number_of_its_files(tmp_path: Path) -> None:
    assert saved_progress(tmp_path / "none", trains=False) == 0
    StageRecord(tmp_path).update(state="running")
    (tmp_path / ".shard-2.17.new").touch()
    assert saved_progress(tmp_path, trains=False) == 0
    for name in ("shard-0", "shard-1"):
        (tmp_path / name).touch()
    assert saved_progress(tmp_path, trains=False) == 2


def test_a_stage_that_starts_again_and_again_without_progress_fails(
    submitted: StageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = submitted.stages
    record = StageRecord(submitted.store / f"{name}-{submitted.stages[name]}")

    def killed(*arguments: Any) -> None:
        record.path.mkdir(parents=True, exist_ok=True)
        record.update(state="running")
        raise StoppedError("killed")

    monkeypatch.setattr(LocalLauncher, "run_stages", killed)
    for _ in range(3):  # one start and two restarts
        with pytest.raises(StoppedError):
            submitted.work(own(), PlainConsole())
    with pytest.raises(RunError, match="100"):
        submitted.work(own(), PlainConsole())
    assert record.info["state"] == "failed"
    assert "pae run tiny" in record.info["error"]


@pytest.mark.parametrize(
    ("save", "seconds", "warns"),
    [(45.0, 60, True), (30.0, 60, True), (29.0, 60, False), (None, 60, False), (45.0, None, False)],
)
def test_a_grace_that_is_shorter_than_the_last_save_is_warned_about(
    tmp_path: Path, save: float | None, seconds: int | None, warns: bool
) -> None:
    record = StageRecord(tmp_path)
    record.update(state="stopped", **({} if save is None else {"save_seconds": save}))
    assert (short_grace(record, seconds) is not None) == warns
