"""State and progress of one stage: its record, beside what Slurm says of its job. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pae_framework.errors import RunError
from pae_framework.runs.job_status import JobStatus, JobsView
from pae_framework.runs.jobs import SubmittedStage
from pae_framework.runs.record import StageRecord
from pae_framework.runs.speed import last_speed


@dataclass(frozen=True)
class StageStatus:
    """State and progress of one stage."""

    stage: str
    state: str
    """As in its record; ``stale``; ``damaged`` if the record cannot be read."""
    progress: str
    """``300/900``, or the file its weights were loaded from."""
    time: str
    """Working time."""
    folder: str
    error: str
    """The reason, if the stage failed or its record is damaged."""
    process: str = ""
    """The process that works on it, and since when."""
    changes: tuple[str, ...] = ()
    """What makes it stale: key paths with the old and the new value, or other facts."""
    stale_inputs: tuple[str, ...] = ()
    """Stages that it reads of which it read other results."""
    outlook: str = ""
    """Whether a training that is stale goes on or starts anew, and why."""
    images_per_s: float | None = None
    """Speed of the training that runs, from the last line of its log."""
    seconds_left: int | None = None
    """Until a stage that runs ends, at its mean speed so far."""
    edited: tuple[str, ...] = ()
    """Packages of plugins whose code changed since it ran, which does not make it stale."""
    upgraded: tuple[str, ...] = ()
    """Distributions of plugins in another version than it ran with, which does not either."""
    job: JobStatus | None = None
    """The last job that was submitted for it."""
    seconds: float | None = None
    """Working time; None: it did not begin."""
    done: int | None = None
    """Steps, images or other items that are done; None: unknown."""
    total: int | None = None
    """Their number in all; None: unknown."""


def stage_status(name: str, record: StageRecord, view: JobsView | None) -> StageStatus:
    """State and progress of a stage.

    Args:
        name: of the stage.
        record: its record.
        view: the jobs of its run; None: they are unknown.
    """
    submitted = view.last(record.path.name) if view else None
    job = view.status(submitted) if view and submitted else None
    try:
        info, state = record.info, record.state
    except RunError as error:
        info, state = {"error": str(error)}, "damaged"
    if view and submitted and job and _works_in(submitted, info, view):
        state = "running" if job.runs else state if job.ended is None else "stopped"
    runs, progress = state == "running", info.get("progress") or {}
    return StageStatus(
        stage=name,
        state=state,
        progress=_progress(info),
        time=f"{info['seconds']:.0f} s" if "seconds" in info else "",
        folder=str(record.path.resolve()),
        error=str(info.get("error") or "") if state in ("failed", "damaged") else "",
        process=_process(info) if runs else "",
        images_per_s=last_speed(record.path) if runs else None,
        seconds_left=_seconds_left(info) if runs else None,
        job=job,
        seconds=info.get("seconds"),
        done=progress.get("done"),
        total=progress.get("total"),
    )


def _works_in(submitted: SubmittedStage, info: Mapping[str, Any], view: JobsView) -> bool:
    """Whether the process that works on a stage, by its record, was started by its last job.

    Its end then depends on the job. A lock says less: it may not be seen from another machine, and
    on a file system without locks it outlasts a node that failed.
    """
    process, start = info.get("process"), view.last_start(submitted)
    if info.get("state") != "running" or process is None or start is None:
        return False
    return bool(
        process["host"] == start.host and _seconds(process["since"]) >= _seconds(start.time)
    )


def _seconds(time: str) -> float:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


def _seconds_left(info: Mapping[str, Any]) -> int | None:
    """Until the stage ends, at its mean speed so far; None if that is unknown."""
    progress, seconds = info.get("progress"), info.get("seconds")
    if not progress or not seconds or progress["done"] <= 0:
        return None
    done, total = int(progress["done"]), int(progress["total"])
    return round((total - done) * float(seconds) / done)


def _progress(info: Mapping[str, Any]) -> str:
    if progress := info.get("progress"):
        return f"{progress['done']}/{progress['total']}"
    return f"from {info['weights']}" if "weights" in info else ""


def _process(info: Mapping[str, Any]) -> str:
    if (process := info.get("process")) is None:
        return ""
    return f"process {process['id']} on {process['host']} since {process['since']}"
