"""Ends the jobs of a run. No torch."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import RunError, UsageError
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.job_status import JobStatus, JobsView, process_runs, submitted_from
from pae_framework.runs.jobs import RunJobs, SubmittedStage
from pae_framework.runs.record import StageRecord
from pae_framework.system.slurm import SlurmUnknownError
from pae_framework.system.slurm_jobs import end_jobs


@dataclass(frozen=True)
class UnendedJob:
    """A job that waits or runs."""

    status: JobStatus
    stages: tuple[SubmittedStage, ...]
    progress: str
    """Of its stages that have begun: ``tokenizer 300/900``; empty: none has."""
    dependents: tuple[str, ...] = ()
    """Ids of the jobs that wait for it, which Slurm cancels with it."""


@dataclass(frozen=True)
class Chosen:
    """The jobs to cancel, and what is left alone."""

    jobs: tuple[UnendedJob, ...]
    shared: tuple[UnendedJob, ...]
    """Jobs whose stages other members of the sweep need too."""


def unended_jobs(run: Path, stage: str | None = None) -> Chosen:
    """The jobs of a run, a sweep or a member that have not ended.

    Args:
        run: its directory.
        stage: only jobs that run this stage.

    Raises:
        UsageError: there is no run, or no job was submitted for such a stage.
        RunError: a record is damaged, or Slurm does not say which jobs have ended.
    """
    info = RunDirectory.at(run).info
    view = JobsView(run)
    known = {entry.stage for entry in view.submitted}
    if stage is not None and stage not in known:
        there = f"stages in jobs: {', '.join(sorted(known))}" if known else "it has no jobs"
        raise UsageError(f"no job of {run} has a stage {stage!r}; {there}")
    if view.problem:
        raise RunError(
            f"Slurm does not say which jobs have not ended: {view.problem}; nothing was canceled"
        )
    store = run / info.get("store", "stages")
    found: list[UnendedJob] = []
    for entries in view.by_job.values():
        status = view.status(entries[-1])
        if status.ended is True or (stage and stage not in {entry.stage for entry in entries}):
            continue
        progress = ", ".join(filter(None, (_progress(entry, store) for entry in entries)))
        found.append(UnendedJob(status, tuple(entries), progress, _dependents(view, entries)))
    needed = _folders_of_other_members(run, view)
    shared = [job for job in found if any(entry.folder in needed for entry in job.stages)]
    return Chosen(tuple(job for job in found if job not in shared), tuple(shared))


def cancel(run: Path, jobs: Sequence[UnendedJob]) -> None:
    """End jobs for good: those that run save first; none is requeued.

    Raises:
        RunError: Slurm does not do it, or a process is that of another machine or user.
    """
    listed = RunJobs(submitted_from(run))
    for job in jobs:
        if job.status.executor == "local" and job.stages[0].host != platform.node():
            raise RunError(
                f"job {job.status.id} runs on {job.stages[0].host}; run `pae cancel` there"
            )
    ids = [job.status.id for job in jobs]
    for name in ids:  # before the signal: a job that gets it looks for the mark
        listed.mark_canceled(name)
    try:
        for job in jobs:
            if job.status.executor == "local":
                _end_process(job.stages[0])
        if in_slurm := [job.status.id for job in jobs if job.status.executor == "slurm"]:
            end_jobs(in_slurm)
    except (SlurmUnknownError, OSError) as error:
        for name in ids:
            listed.unmark_canceled(name)
        raise RunError(f"jobs {', '.join(ids)} are not canceled: {error}; try again") from None


def _end_process(entry: SubmittedStage) -> None:
    """Tell the processes of a job of the executor local to save and stop."""
    if process_runs(entry):
        with suppress(ProcessLookupError):
            os.kill(int(entry.job), signal.SIGTERM)


def _progress(entry: SubmittedStage, store: Path) -> str:
    with suppress(RunError):  # a damaged record must not keep its job in the queue
        if progress := StageRecord(store / entry.folder).info.get("progress"):
            return f"{entry.stage} {progress['done']}/{progress['total']}"
    return ""


def _dependents(view: JobsView, entries: Sequence[SubmittedStage]) -> tuple[str, ...]:
    """The jobs that need the success of one, directly or not."""
    waiting = [stage for entry in entries for stage in view.jobs.waiting_for(entry.id)]
    ended = {stage.id for stage in waiting if view.status(stage).ended is True}
    return tuple(dict.fromkeys(stage.id for stage in waiting if stage.id not in ended))


def _folders_of_other_members(run: Path, view: JobsView) -> set[str]:
    """Folders of the stages that other members of the run's sweep need; none if it has none."""
    if view.jobs.path == run:
        return set()
    others = [path for path in view.jobs.path.glob("members/*") if path.resolve() != run.resolve()]
    plans = [RunDirectory.at(path).plan for path in others if (path / "run.json").is_file()]
    return {stage.folder for plan in plans for stage in plan.values()}
