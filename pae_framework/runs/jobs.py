"""The jobs of a run: which were submitted, how often each started, which were canceled. No torch.

::

    RUN/
      jobs.json                     one entry per stage and job, in the order of submission
      jobs/
        recipe-0f1e2d3c4b5a.yaml    the recipe as it was submitted, with all values
        12_0_log.out                what process 0 of job 12 printed, over all its starts
        starts-encoder-1f2e3d.jsonl one line per start of a job that ran the stage
        12.canceled                 `pae cancel` ended job 12, so it must not be requeued
        12.requeue                  asks the script of job 12 to requeue it
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pae_framework.runs.reading import read_record, read_text
from pae_framework.system.file_errors import writing
from pae_framework.system.files import make_folder, write_json, write_text

JOBS = "jobs.json"
FOLDER = "jobs"
VERSION = 1
COMPARISON = "comparison"
"""In place of a stage's name: the job that writes the results and the report of a sweep."""
_REMEDY = (
    "remove this file, cancel jobs of the run that are still in the queue, and submit it again"
)


class SubmittedStage(BaseModel):
    """A stage in a job that was submitted."""

    model_config = ConfigDict(extra="allow")

    stage: str
    """Name of the stage; :data:`COMPARISON` for the job that writes the results of a sweep."""
    fingerprint: str
    folder: str
    """Name of the stage's folder in the store."""
    member: str | None = None
    """Name of the first member of the sweep that needs it; None: no sweep."""
    job: str
    """Its number: that of Slurm, or of the process that controls it (executor local)."""
    array_index: int | None = None
    """Its index, if it is a task of an array of jobs."""
    executor: Literal["slurm", "local", "debug"]
    profile: str
    """Name of the profile with which it was submitted."""
    host: str
    """The machine that submitted it; a job of the executor local runs there."""
    resources: dict[str, Any]
    """What the job asks for, as in the profile."""
    submitted: str
    depends_on: list[str]
    """Ids of the jobs that must have ended before."""
    whatever: bool = False
    """Whether it also runs if those failed."""
    snapshot: str
    """Name of the file in the folder of jobs with the recipe."""
    sources: dict[str, str]
    """Package -> hash of its code at submission."""

    @property
    def id(self) -> str:
        """The job as Slurm and the names of its logs write it: ``12``, or ``12_3`` in an array."""
        return self.job if self.array_index is None else f"{self.job}_{self.array_index}"


class _Jobs(BaseModel):
    """The shape of ``jobs.json``."""

    version: Literal[1]
    jobs: list[SubmittedStage]


class Start(BaseModel):
    """One start of a job that runs a stage."""

    job: str
    restarts: int
    """How often Slurm had started the job before."""
    time: str
    host: str
    progress: int
    """What the stage had saved, as a number that grows with it."""
    changes: list[str] = []
    """What had changed since the submission."""


@dataclass(frozen=True)
class RunJobs:
    """The jobs of the run, or of the sweep, in a directory."""

    path: Path

    @property
    def file(self) -> Path:
        """The JSON file with the jobs."""
        return self.path / JOBS

    @property
    def folder(self) -> Path:
        """The folder of logs, scripts and recipes of jobs."""
        return self.path / FOLDER

    @property
    def submitted(self) -> list[SubmittedStage]:
        """The stages in jobs, in the order of submission; empty if there are none.

        Raises:
            RunError: the file is damaged.
        """
        if not os.path.lexists(self.file):
            return []
        content = read_record(self.file, _Jobs, _REMEDY)
        return [SubmittedStage.model_validate(entry) for entry in content["jobs"]]

    def add(self, stages: Sequence[SubmittedStage]) -> None:
        """Add stages in jobs that were submitted just now. Hold the run's lock.

        Raises:
            RunError: the file is damaged.
            WriteError: it cannot be written.
        """
        entries = [stage.model_dump(mode="json") for stage in (*self.submitted, *stages)]
        write_json(self.file, {"version": VERSION, "jobs": entries})

    def waiting_for(self, job: str) -> list[SubmittedStage]:
        """The stages in jobs that need the success of a job, directly or not, in order.

        Raises:
            RunError: the file is damaged.
        """
        jobs, found = {job, job.partition("_")[0]}, list[SubmittedStage]()
        for stage in self.submitted:
            if not stage.whatever and not jobs.isdisjoint(stage.depends_on):
                jobs |= {stage.id, stage.job}
                found.append(stage)
        return found

    def log(self, job: str, rank: int = 0) -> Path:
        """What a process of a job printed.

        Args:
            job: id of the job, see :attr:`SubmittedStage.id`.
            rank: index of the process.
        """
        return self.folder / f"{job}_{rank}_log.out"

    def starts(self, stage_folder: str) -> list[Start]:
        """The starts of jobs that ran a stage, in order.

        Raises:
            RunError: the file cannot be read. A last line that is not whole is left out.
        """
        file = self._starts(stage_folder)
        if not file.exists():
            return []
        found = []
        for line in read_text(file, "remove it").splitlines():
            try:
                found.append(Start.model_validate_json(line))
            except ValueError:
                continue
        return found

    def add_start(self, stage_folder: str, start: Start) -> None:
        """Add a start of a job."""
        file = self._starts(stage_folder)
        make_folder(file.parent)
        with writing(file), file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(start.model_dump(mode="json")) + "\n")

    def _starts(self, stage_folder: str) -> Path:
        return self.folder / f"starts-{stage_folder}.jsonl"

    def mark_canceled(self, job: str) -> None:
        """Say that a user ended a job: it must not be requeued. Do it before it gets a signal."""
        write_text(self._canceled(job), "")

    def unmark_canceled(self, job: str) -> None:
        """Take the mark back, because the job could not be ended."""
        self._canceled(job).unlink(missing_ok=True)

    def is_canceled(self, job: str) -> bool:
        """Whether a user ended a job with `pae cancel`."""
        return self._canceled(job).exists()

    def _canceled(self, job: str) -> Path:
        return self.folder / f"{job}.canceled"


def resuming(command: str) -> str:
    """The command that resumes what a command of a user began: ``--again`` would begin anew."""
    kept, words = list[str](), iter(shlex.split(command))
    for word in words:
        if word == "--again":
            next(words, None)
        elif not word.startswith("--again="):
            kept.append(word)
    return shlex.join(kept)


def now() -> str:
    """The present time, as records write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
