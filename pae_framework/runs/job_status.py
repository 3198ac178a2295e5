"""How the jobs of a run stand: what Slurm says, beside what the run recorded. No torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import RunError
from pae_framework.runs.directory import RECORD, RunDirectory
from pae_framework.runs.job_text import (
    LOCAL_ENDED,
    ended_text,
    running_text,
    state_text,
    waiting_text,
)
from pae_framework.runs.jobs import COMPARISON, JOBS, RunJobs, Start, SubmittedStage
from pae_framework.system.slurm_jobs import SlurmAnswer, SlurmJob, look_at

_MAY_BE_QUEUED = ("PREEMPTED", "REQUEUED", "NODE_FAIL")
"""States in accounting of a job that may be in the queue again."""
_SHOWN = 3
"""Stages of a job that are named."""


@dataclass(frozen=True)
class JobStatus:
    """How one job stands."""

    id: str
    executor: str
    profile: str
    """Name of the profile with which it was submitted."""
    state: str
    """As Slurm writes it: ``PENDING``; of the executor local ``RUNNING`` or ``ENDED``; empty:
    unknown."""
    reason: str
    """Slurm's reason, as it writes it: ``Dependency``; empty: none."""
    text: str
    """State and reason in plain words."""
    runs: bool
    """Whether it has nodes, or a process."""
    ended: bool | None
    """Whether it has ended for good; None: unknown."""
    nodes: str
    """As Slurm writes it: ``node[1-2]``."""
    start: str
    """Since when it runs, or when it is expected to start; empty: unknown."""
    restarts: int
    """How often it was started again."""
    canceled: bool
    """Whether `pae cancel` ended it."""
    log: str
    """File with what its first process printed, over all starts."""

    def __str__(self) -> str:
        return f"job {self.id}: {self.text}"


def submitted_from(path: Path) -> Path:
    """The directory that lists the jobs of a run: that of the sweep, for a member."""
    if path.resolve().parent.name != "members" or os.path.lexists(path / JOBS):
        return path
    sweep = path.resolve().parent.parent
    return sweep if (sweep / RECORD).is_file() else path


class JobsView:
    """The jobs of a run, a sweep or a member as they stand now. Slurm is asked once.

    Jobs of the executor debug are left out: they are the process that submits them.

    Args:
        path: the directory.
        only: ask only about the job of this stage and the jobs that it waits for.

    Raises:
        RunError: ``jobs.json`` is damaged.
    """

    def __init__(self, path: Path, only: SubmittedStage | None = None):
        home = submitted_from(path)
        self.jobs = RunJobs(home)
        listed = [entry for entry in self.jobs.submitted if entry.executor != "debug"]
        if listed and home != path:
            own = {stage.folder for stage in RunDirectory.at(path).plan.values()}
            listed = [entry for entry in listed if entry.folder in own]
        if only is not None:
            jobs = {only.id, *only.depends_on}
            listed = [entry for entry in listed if {entry.id, entry.job} & jobs]
        self.submitted = listed
        """The stages in jobs, in the order of submission."""
        ids = list(dict.fromkeys(entry.id for entry in listed if entry.executor == "slurm"))
        self._slurm = look_at(ids) if ids else SlurmAnswer({})

    @property
    def by_job(self) -> Mapping[str, list[SubmittedStage]]:
        """The stages of each job, by its id, in the order of submission."""
        found: dict[str, list[SubmittedStage]] = {}
        for entry in self.submitted:
            found.setdefault(entry.id, []).append(entry)
        return found

    @property
    def problem(self) -> str:
        """Why the controller of Slurm did not answer; empty: it did, or was not asked."""
        return self._slurm.queue_problem

    def last(self, folder: str) -> SubmittedStage | None:
        """The last submission of the stage in a folder of the store; None if there is none."""
        found = [entry for entry in self.submitted if entry.folder == folder]
        return found[-1] if found else None

    @property
    def comparison(self) -> JobStatus | None:
        """The job that writes the results of a sweep; None if there is none."""
        found = [entry for entry in self.submitted if entry.stage == COMPARISON]
        return self.status(found[-1]) if found else None

    def last_start(self, entry: SubmittedStage) -> Start | None:
        """The last start of a stage in its job; None if there is none."""
        starts = self._starts(entry)
        return starts[-1] if starts else None

    def status(self, entry: SubmittedStage) -> JobStatus:
        """How the job of a submitted stage stands."""
        job, ended = self._known(entry)
        restarts = job.restarts if job is not None else None
        if restarts is None:
            restarts = max((start.restarts for start in self._starts(entry)), default=0)
        return JobStatus(
            id=entry.id,
            executor=entry.executor,
            profile=entry.profile,
            state=job.state if job else "",
            reason=job.reason if job else "",
            text=self._text(entry, job, ended, restarts),
            runs=job is not None and job.runs,
            ended=ended,
            nodes=job.nodes if job else "",
            start=job.start if job else "",
            restarts=restarts,
            canceled=self.jobs.is_canceled(entry.id),
            log=str(self.jobs.log(entry.id).absolute()),
        )

    def _starts(self, entry: SubmittedStage) -> list[Start]:
        with suppress(RunError):  # they only explain
            return [start for start in self.jobs.starts(entry.folder) if start.job == entry.id]
        return []

    def _known(self, entry: SubmittedStage) -> tuple[SlurmJob | None, bool | None]:
        """The job, None if nobody knows it; and whether it has ended, None if that is unknown."""
        if entry.executor == "local":
            if entry.host != platform.node():
                return None, None
            state = "RUNNING" if process_runs(entry) else LOCAL_ENDED
            local = SlurmJob(entry.id, state, nodes=entry.host, restarts=0)
            return local, state == LOCAL_ENDED
        job = self._slurm.jobs.get(entry.id)
        if job is None:
            return None, None if self._slurm.queue_problem else True
        if self._slurm.queue_problem and job.state in _MAY_BE_QUEUED:
            return job, None
        return job, job.ended

    # --- in plain words ---------------------------------------------------------------------------

    def _text(
        self, entry: SubmittedStage, job: SlurmJob | None, ended: bool | None, restarts: int
    ) -> str:
        if job is None:
            return self._unknown(entry, ended)
        if ended:
            canceled = self.jobs.is_canceled(entry.id)
            text = ended_text(job, restarts, self._inputs(entry, _is_broken), canceled)
        elif job.state == "PENDING":
            broken = self._inputs(entry, _is_broken)
            text = waiting_text(job, restarts, self._inputs(entry, _has_not_ended), broken)
        else:
            text = running_text(job, restarts)
        separator = " " if text.startswith("on ") else ": "
        return separator.join(filter(None, [state_text(job), text]))

    def _unknown(self, entry: SubmittedStage, ended: bool | None) -> str:
        if entry.executor == "local":
            return f"unknown here: it was started on {entry.host}"
        if ended is None:
            return f"unknown: {self._slurm.queue_problem}"
        if self._slurm.accounting_problem:
            return f"not in the queue; how it ended is unknown: {self._slurm.accounting_problem}"
        return "not in the queue, and Slurm does not remember it"

    def _inputs(
        self, entry: SubmittedStage, chosen: Callable[[SlurmJob | None, bool | None], bool]
    ) -> str:
        """Chosen jobs that a job depends on: ``encoder (job 12), refine (job 13)``."""
        found: dict[str, list[str]] = {}
        for other in self.submitted:
            if {other.id, other.job} & set(entry.depends_on) and chosen(*self._known(other)):
                found.setdefault(other.job, []).append(other.stage)
        return ", ".join(f"{named(stages)} (job {job})" for job, stages in found.items())


def named(stages: list[str]) -> str:
    """The first of several stages: ``sample, evaluate``, ``encoder, refine and 3 more``."""
    names = list(dict.fromkeys(stages))
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])} and {len(names) - _SHOWN + 1} more"


def process_runs(entry: SubmittedStage) -> bool:
    """Whether the process of a job of the executor local runs; it must be of this machine."""
    try:
        words = Path(f"/proc/{entry.job}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.startswith(b"submitit") for word in words)


def _is_broken(job: SlurmJob | None, ended: bool | None) -> bool:
    return ended is True and job is not None and job.state != "COMPLETED"


def _has_not_ended(job: SlurmJob | None, ended: bool | None) -> bool:
    return ended is not True
