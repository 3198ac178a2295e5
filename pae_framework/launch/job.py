"""What runs in a job: some stages of a run, in all processes that the job started.

A job knows its run by the directory, and holds no state of the code: the recipe is read from the
file that was written at submission, and the code is imported anew. Packages, code and plan are
compared with those at submission when the job starts.
"""

from __future__ import annotations

import os
import platform
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pae_framework.distributed.failure import RankError
from pae_framework.distributed.job_place import take_place
from pae_framework.errors import SAVED, PaeError, RunError, StoppedError, WriteError
from pae_framework.launch.local import LocalLauncher
from pae_framework.launch.ranks import Ranks, count_processes
from pae_framework.launch.run_sweep import compare_members, run_sweep
from pae_framework.launch.snapshot import Snapshot
from pae_framework.preflight.saves import stop_seconds
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.sweep import expand
from pae_framework.registry import Registry
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.jobs import RunJobs, Start, now
from pae_framework.runs.plan import PlannedStage, upstream_stages
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import write_text
from pae_framework.system.slurm import SlurmUnknownError
from pae_framework.system.slurm_jobs import job_state, requeue
from pae_framework.system.stopping import (
    STOP_SIGNALS,
    StopRequest,
    interrupted_by,
    stopped_by,
)

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

VISIBLE_DEVICES = "PAE_VISIBLE_DEVICES"
"""What ``CUDA_VISIBLE_DEVICES`` was where the job was submitted (executor local)."""
REQUEUE = "PAE_REQUEUE"
"""Names the file that asks the job's script to requeue it; not set: the script cannot."""
_RESTARTS = "SLURM_RESTART_COUNT"


@dataclass(frozen=True)
class JobRules:
    """How a job behaves when it is interrupted.

    Args:
        executor: ``slurm``, ``local`` or ``debug``.
        restarts: starts without progress after the first one that a stage may have.
        seconds: how long a save may take when the job is interrupted; None: unknown.
        again: what the user typed to run the stages; it resumes the run.
    """

    executor: str
    restarts: int
    seconds: int | None
    again: str


@dataclass(frozen=True)
class _Job:
    """A job; submitit calls it in each of its processes."""

    jobs: Path
    """Directory of the run or of the sweep that it belongs to."""
    snapshot: Snapshot
    rules: JobRules

    def __call__(self) -> None:
        """Do this process' part; an error ends the process with its exit code."""
        console = PlainConsole()
        own = _OwnJob.here(self.rules.executor)
        if self.rules.executor == "debug":  # this is the process of the user
            self.work(own, console)
            return
        sys.argv[1:] = shlex.split(self.rules.again)[1:]  # locks name the command of their holder
        try:
            with _interrupted_by_signals():
                if not own.follows():
                    self.work(own, console)
        except (StoppedError, KeyboardInterrupt) as error:
            stopped = stopped_by(error)
            console.print(str(stopped))
            is_requeued, text = self._after_stop(own)
            console.print(text)
            sys.exit(SAVED if is_requeued else stopped.exit_code)
        except PaeError as error:
            if isinstance(error, RankError) and error.failure.is_silent:
                console.print(
                    f"if its node failed, Slurm requeues job {own.id}, which resumes from its last "
                    "checkpoint; else:"
                )
            if waiting := RunJobs(self.jobs).waiting_for(own.id):
                stages = ", ".join(f"{stage.stage} (job {stage.id})" for stage in waiting)
                console.print(f"canceled by Slurm, because they wait for this job: {stages}")
            console.print(f"error: {error}")
            sys.exit(error.exit_code)

    def checkpoint(self) -> DelayedSubmission:
        """The job as it is to be run when it is requeued: the same; for submitit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def work(self, own: _OwnJob, console: PlainConsole) -> None:
        """Do the job in the main process."""
        raise NotImplementedError

    def _loaded(self, registry: Registry, directory: RunDirectory) -> LoadedRecipe:
        """The recipe of the job, with the file and the overrides that its directory describes."""
        overrides = tuple(directory.text("overrides.txt").splitlines())
        loaded = self.snapshot.load(registry)
        return replace(loaded, text=directory.text("recipe.yaml"), overrides=overrides)

    def _after_stop(self, own: _OwnJob) -> tuple[bool, str]:
        """Requeue the job if it runs; returns whether it is requeued, and what to tell."""
        if RunJobs(self.jobs).is_canceled(own.id):
            return False, f"job {own.id} was canceled; to resume: {self.rules.again}"
        if self.rules.executor != "slurm":
            return False, f"to resume: {self.rules.again}"
        try:
            state = job_state(own.id)
            if state == "RUNNING":
                requeue(own.id)
                return True, f"job {own.id} is requeued and resumes under the same id"
        except SlurmUnknownError as error:
            if _ask_script_to_requeue():
                return True, f"job {own.id} is to be requeued by its script, because here {error}"
            return False, (
                f"job {own.id} cannot be requeued from here: {error}; to resume: {self.rules.again}"
            )
        return False, (
            f"job {own.id} is {state}: Slurm requeues it if it was preempted or its node failed; "
            f"if it was canceled or reached its time limit, resume with: {self.rules.again}"
        )


@dataclass(frozen=True)
class StageJob(_Job):
    """A job that runs stages of one run.

    Args:
        run: the run's directory.
        store: folder of its stages.
        stages: name and fingerprint of each stage to run, in order.
    """

    run: Path
    store: Path
    stages: Mapping[str, str]

    def work(self, own: _OwnJob, console: PlainConsole) -> None:  # noqa: D102
        registry = self.snapshot.registry()
        changes = self.snapshot.changes(registry)
        for line in changes:
            console.print(f"changed since the submission: {line}")
        directory = RunDirectory.at(self.run, self.store)
        loaded = self._loaded(registry, directory)
        records = {
            name: StageRecord(self.store / f"{name}-{fingerprint}")
            for name, fingerprint in self.stages.items()
        }
        unfinished = [name for name in self.stages if not records[name].done]
        for name in unfinished[:1]:  # before the plan, which may take long, so that it counts
            self._start(own, records[name], loaded, changes, console)
        planned = planned_stages(loaded, self.store)
        self._require_plan(planned)
        self._require_inputs(planned, directory)
        with Ranks(count_processes(None), console) as ranks:
            launcher = LocalLauncher(console, ranks)

            def start(name: str) -> None:
                if name in unfinished[1:]:
                    self._start(own, records[name], loaded, changes, console)

            stages, again = list(self.stages), self.rules.again
            launcher.run_stages(loaded, directory, planned, stages, again, start)

    def _require_plan(self, planned: Mapping[str, PlannedStage]) -> None:
        for name, fingerprint in self.stages.items():
            if name not in planned or planned[name].fingerprint != fingerprint:
                present = planned[name].fingerprint if name in planned else "no such stage"
                raise RunError(
                    f"stage {name} is not the one that was submitted ({fingerprint}, now "
                    f"{present}): its images, files or code changed; submit it again: "
                    f"{self.rules.again}"
                )

    def _require_inputs(self, planned: Mapping[str, PlannedStage], directory: RunDirectory) -> None:
        needed = {stage for name in self.stages for stage in upstream_stages(planned, name)}
        missing = [
            name
            for name in planned
            if name in needed - self.stages.keys() and not directory.stage(planned[name]).done
        ]
        if missing:
            raise RunError(
                f"{', '.join(self.stages)} cannot run, because {', '.join(missing)} is not done; "
                f"submit it again: {self.rules.again}"
            )

    def _start(
        self,
        own: _OwnJob,
        record: StageRecord,
        loaded: LoadedRecipe,
        changes: list[str],
        console: PlainConsole,
    ) -> None:
        """Record the start of a stage, unless it starts again and again without progress."""
        jobs, name = RunJobs(self.jobs), record.path.name
        trains = STAGES[name.partition("-")[0]].train(loaded.recipe) is not None
        start = Start(
            job=own.id,
            restarts=own.restarts,
            time=now(),
            host=platform.node(),
            progress=saved_progress(record.path, trains),
            changes=changes,
        )
        earlier = starts_without_progress(jobs.starts(name), start)
        jobs.add_start(name, start)
        if earlier > self.rules.restarts:
            error = (
                f"job {own.id} started this stage {earlier} times without a new checkpoint; it "
                f"is not started again. Find the cause in {jobs.log(own.id)}, then: "
                f"{self.rules.again}"
            )
            if record.info:
                record.update(state="failed", error=error)
            raise RunError(error)
        if (warning := short_grace(record, self.rules.seconds)) is not None:
            console.print(f"warning: {warning}")


@dataclass(frozen=True)
class SweepJob(_Job):
    """A job that runs members of a sweep one after the other.

    Args:
        members: their names.
    """

    members: tuple[str, ...]

    def work(self, own: _OwnJob, console: PlainConsole) -> None:  # noqa: D102
        registry = self.snapshot.registry()
        for line in self.snapshot.changes(registry):
            console.print(f"changed since the submission: {line}")
        directory = RunDirectory.at(self.jobs)
        loaded = self._loaded(registry, directory)
        members = [member for member in expand(loaded) if member.name in self.members]
        with Ranks(count_processes(None), console) as ranks:
            launcher = LocalLauncher(console, ranks)
            run_sweep(loaded, directory, members, launcher, self.rules.again, console)


@dataclass(frozen=True)
class ComparisonJob(_Job):
    """A job that writes the results and the report of a sweep."""

    def work(self, own: _OwnJob, console: PlainConsole) -> None:  # noqa: D102
        compare_members(self.snapshot.load(self.snapshot.registry()), RunDirectory.at(self.jobs))
        console.print(f"report: {self.jobs / 'report.html'}")


@dataclass(frozen=True)
class _OwnJob:
    """The job that this process belongs to."""

    id: str
    restarts: int
    executor: str

    @classmethod
    def here(cls, executor: str) -> _OwnJob:
        if executor == "debug":
            return cls("debug", 0, executor)
        from submitit import JobEnvironment

        return cls(JobEnvironment().job_id, int(os.environ.get(_RESTARTS) or 0), executor)

    def follows(self) -> bool:
        """Take the place of this process; follow the main process to the end if it is another."""
        from submitit import JobEnvironment

        if self.executor == "local":
            _see_devices_of_submitter()
        place = take_place(JobEnvironment(), self.restarts)
        if place.rank == 0:
            return False
        with StopRequest():
            from pae_framework.launch.follower import follow  # loads torch

            code = follow(place)
        if code:
            sys.exit(code)
        return True


def _ask_script_to_requeue() -> bool:
    """Ask the script of this job to requeue it; returns whether it can."""
    if (file := os.environ.get(REQUEUE)) is None:
        return False
    try:
        write_text(Path(file), "")
    except WriteError:
        return False
    return True


def _see_devices_of_submitter() -> None:
    """Undo submitit's choice of GPUs: processes choose by their index among those of the user."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if (devices := os.environ.get(VISIBLE_DEVICES)) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices


def saved_progress(folder: Path, trains: bool) -> int:
    """What a stage has saved, as a number that grows with it.

    Args:
        folder: of the stage.
        trains: whether it is a training: the step of its newest checkpoint counts, else the number
            of its files without the record.
    """
    if trains:
        found = folder.glob("checkpoints/step-*[0-9]")
        return max((int(path.name.removeprefix("step-")) for path in found), default=0)
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return sum(1 for path in files if path != StageRecord(folder).file)


def starts_without_progress(earlier: list[Start], start: Start) -> int:
    """How many starts of this job before this one saved nothing that was there before."""
    same = [past for past in earlier if past.job == start.job and past.progress == start.progress]
    return len(same)


def short_grace(record: StageRecord, seconds: int | None) -> str | None:
    """A warning if the last save of a training took longer than an interrupted job has."""
    last = record.info.get("save_seconds")
    if seconds is None or last is None or stop_seconds(last) < seconds:
        return None
    return (
        f"the last save of {record.path.name} took {last:.0f} s, and a stop may take two, but the "
        f"profile grants "
        f"{seconds} s; work since the last checkpoint is lost if the job is interrupted"
    )


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Outside of training, the first signal that asks to stop interrupts, as Ctrl-C does.

    Afterwards the process is about to end, and signals change nothing.
    """
    numbers = [number for number in STOP_SIGNALS if number != signal.SIGINT]
    try:
        with interrupted_by(numbers):
            yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
