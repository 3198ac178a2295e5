"""Submit the unfinished stages of a recipe as jobs, through submitit. No torch.

On Slurm each stage is a job with its own resources, which starts when the jobs of the stages that
it reads have succeeded. Of a sweep, the stages that members share come first; then one array with a
task per member runs the rest. The executors local and debug have one job that runs everything.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.text import Text

from pae_framework.errors import RunError
from pae_framework.launch.description import DescribedRun, describe_run
from pae_framework.launch.executors import Executor
from pae_framework.launch.job import (
    ComparisonJob,
    JobRules,
    StageJob,
    SweepJob,
)
from pae_framework.launch.run_sweep import describe_sweep, member_directory
from pae_framework.launch.snapshot import Snapshot, versions
from pae_framework.launch.submission import (
    ARRAY,
    COMPARISON_STAGE,
    PlannedJob,
    Task,
    chain_jobs,
    resources_text,
    sweep_jobs,
    whole_job,
    whole_sweep_job,
)
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profile_settings import Profile
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.recipe.sweep import Member, expand
from pae_framework.registry import Registry
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.job_status import process_runs
from pae_framework.runs.jobs import RunJobs, SubmittedStage, now, resuming
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.sources import source_hashes
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import digest_of_text, make_folder, write_text
from pae_framework.system.slurm import (
    SlurmUnknownError,
    foreign_settings,
)
from pae_framework.system.slurm_jobs import end_jobs, queued_jobs


@dataclass(frozen=True)
class Submitter:
    """Submits the jobs of one run or sweep.

    Args:
        directory: of the run or the sweep.
        profile: where the jobs run.
        registry: the installed plugins.
        command: what the user typed.
        console: shows what is submitted.
    """

    directory: RunDirectory
    profile: FoundProfile
    registry: Registry
    command: str
    console: PlainConsole

    def submit_run(self, loaded: LoadedRecipe) -> None:
        """Submit the unfinished stages of a recipe; returns when they are in the queue.

        Stages whose jobs have not ended are not submitted again.

        Raises:
            RunError: another process holds the run, or a job is not accepted.
        """
        self._prepare()
        with self.directory.lock():
            described = describe_run(loaded, self.directory, self.command, self.console)
            self._tell_outdated(described.stages.values())
            if not described.unfinished:
                self.directory.link_report()
                self.console.print("no job: every stage is done")
            elif self._executor == "slurm":
                jobs = chain_jobs(described, self._profile, self._queued)
                self._submit_all(jobs, lambda task: self._stage_job(loaded, self.directory, task))
            else:
                job = whole_job(described, self._profile)
                if not self._any_queued(job.stages):
                    self._submit(job, [self._stage_job(loaded, self.directory, job.tasks[0])], [])

    def submit_sweep(self, loaded: LoadedRecipe, members: list[Member]) -> None:
        """Submit the unfinished stages of members of a sweep, and the report of all.

        Raises:
            RunError: another process holds the sweep, or a job is not accepted.
        """
        self._prepare()
        with self.directory.lock():
            describe_sweep(loaded, self.directory, members, self.command)
            runs = {member.name: self._described(member) for member in members}
            self._tell_outdated(
                stage
                for member in expand(loaded)
                for stage in planned_stages(member.loaded, self.directory.store).values()
            )
            by_name = {member.name: member for member in members}
            if self._executor == "slurm":
                jobs = sweep_jobs(runs, self._profile, self._queued)
                self._submit_all(jobs, lambda task: self._sweep_task(loaded, by_name, task))
            else:
                job = whole_sweep_job(runs, self._profile)
                if not self._any_queued(job.stages):
                    self._submit(job, [self._sweep_job(loaded, list(by_name))], [])

    # --- what a job runs --------------------------------------------------------------------------

    def _stage_job(self, loaded: LoadedRecipe, directory: RunDirectory, task: Task) -> StageJob:
        return StageJob(
            self._absolute,
            self._snapshot(loaded),
            self._rules,
            directory.path.absolute(),
            directory.store.absolute(),
            {stage.name: stage.fingerprint for stage in task.stages},
        )

    def _sweep_task(
        self, loaded: LoadedRecipe, members: Mapping[str, Member], task: Task
    ) -> StageJob | ComparisonJob:
        if task.member is None:
            return ComparisonJob(self._absolute, self._snapshot(loaded), self._rules)
        member = members[task.member]
        return self._stage_job(member.loaded, member_directory(self.directory, member), task)

    def _sweep_job(self, loaded: LoadedRecipe, members: Sequence[str]) -> SweepJob:
        return SweepJob(self._absolute, self._snapshot(loaded), self._rules, tuple(members))

    def _described(self, member: Member) -> DescribedRun:
        directory = member_directory(self.directory, member)
        with directory.lock():
            return describe_run(member.loaded, directory, self.command, self.console)

    # --- what every job has -----------------------------------------------------------------------

    @property
    def _executor(self) -> str:
        return self.profile.profile.executor

    @property
    def _submitit(self) -> Executor:
        return Executor(self._profile, self._jobs.folder, self._absolute.name)

    @property
    def _absolute(self) -> Path:
        return self.directory.path.absolute()

    @property
    def _jobs(self) -> RunJobs:
        return RunJobs(self._absolute)

    @property
    def _rules(self) -> JobRules:
        profile, known = self.profile.profile, None
        if self._executor == "slurm":
            grace = profile.signal_before if profile.grace is None else profile.grace
            known = min(profile.signal_before, grace)
        again = resuming(self.command)
        return JobRules(self._executor, profile.max_restarts_without_progress, known, again)

    def _snapshot(self, loaded: LoadedRecipe) -> Snapshot:
        """Write the recipe for the job, and say what it is submitted with."""
        text = loaded.resolved_yaml()
        digest = digest_of_text(text)
        file = self._jobs.folder / f"recipe-{digest[:12]}.yaml"
        write_text(file, text)
        return Snapshot(
            file,
            digest,
            loaded.source.absolute(),
            digest_of_text(loaded.text),
            *self._code,
            tuple(Path(plugin.file) for plugin in self.registry.plugins if plugin.file),
        )

    @cached_property
    def _code(self) -> tuple[dict[str, str], dict[str, str]]:
        """Versions of packages and hashes of code, at submission."""
        return versions(self.registry), source_hashes(self.registry)

    def _prepare(self) -> None:
        """Make the folder of jobs, and tell what is left out."""
        make_folder(self._jobs.folder)
        if self._executor != "slurm":
            return
        if foreign := foreign_settings(os.environ):
            self.console.print(
                f"not used: {', '.join(foreign)}; jobs ask for what profile "
                f"{self.profile.name} says"
            )

    # --- the queue --------------------------------------------------------------------------------

    @cached_property
    def _unended(self) -> Mapping[str, SubmittedStage]:
        """The stages in jobs that have not ended, by folder."""
        submitted = [
            stage for stage in self._jobs.submitted if not self._jobs.is_canceled(stage.id)
        ]
        waiting: frozenset[str] = frozenset()
        if ids := {stage.id for stage in submitted if stage.executor == "slurm"}:
            try:
                waiting = queued_jobs(ids, self._tell_ending)
            except SlurmUnknownError as error:
                if self._executor != "slurm":  # locks keep two processes from one stage
                    self.console.print(f"jobs of the run in Slurm's queue are unknown: {error}")
                    return self._alive(submitted, waiting)
                raise RunError(
                    f"Slurm does not say which jobs of the run have not ended: {error}; nothing "
                    "was submitted"
                ) from None
        return self._alive(submitted, waiting)

    def _tell_ending(self, jobs: Sequence[str]) -> None:
        self.console.print(f"waiting until job {', '.join(jobs)} has ended")

    def _alive(
        self, submitted: Iterable[SubmittedStage], waiting: Collection[str]
    ) -> Mapping[str, SubmittedStage]:
        return {
            stage.folder: stage
            for stage in submitted
            if (stage.id in waiting if stage.executor == "slurm" else _is_alive(stage))
        }

    def _queued(self, stage: PlannedStage, inputs: Sequence[str] | None) -> str | None:
        """The job of a stage that has not ended; says that the stage is not submitted again.

        None if it does not wait for the jobs of its inputs: those that it waits for have failed or
        were canceled, so Slurm ends it, or it would start too early.
        """
        found = self._unended.get(stage.folder)
        if found is None:
            return None
        if found.executor != self._executor:
            raise RunError(
                f"stage {stage.name} is in job {found.id} of the executor {found.executor} "
                f"already; wait until it ends, or run pae cancel {self._absolute}"
            )
        if inputs is None or not set(inputs) <= {found.id, found.job, *found.depends_on}:
            self._vain[found.id] = stage.name
            return None
        self._print(stage.name, f"is in job {found.id} already")
        return found.id

    @cached_property
    def _vain(self) -> dict[str, str]:
        """Jobs that cannot succeed -> a stage of each; they are submitted again."""
        return {}

    def _end_vain(self) -> None:
        for job, stage in self._vain.items():
            self._print(stage, f"job {job} waits for a job that did not succeed: submitted again")
            self._jobs.mark_canceled(job)
        try:
            if self._vain:
                end_jobs(list(self._vain))
        except SlurmUnknownError as error:
            raise RunError(f"jobs {', '.join(self._vain)} cannot be canceled: {error}") from None

    def _any_queued(self, stages: Iterable[PlannedStage]) -> bool:
        """Whether any of the stages is in a job that has not ended; says so of each."""
        queued = [stage for stage in stages if self._queued(stage, []) is not None]
        if queued:
            self.console.print("no job: the executor has one for all stages, which has not ended")
        return bool(queued)

    def _tell_outdated(self, stages: Iterable[PlannedStage]) -> None:
        """Name jobs that have not ended and run none of the stages of the run or sweep."""
        planned = {COMPARISON_STAGE.folder, *(stage.folder for stage in stages)}
        for folder, stage in self._unended.items():
            if folder not in planned:
                end = "scancel" if stage.executor == "slurm" else "kill"
                self._print(
                    stage.stage,
                    f"of the recipe before it changed is still in job {stage.id}; to end it: {end} "
                    f"{stage.id}",
                )

    def _submit_all(self, jobs: Sequence[PlannedJob], run: Callable[[Task], Any]) -> None:
        """Submit jobs in order; ``run`` makes what a task runs."""
        self._end_vain()
        ids: dict[PlannedJob | str, list[str]] = {}
        for job in jobs:
            after = [name for earlier in job.after for name in ids.get(earlier, [str(earlier)])]
            if job.whatever:
                after = _array_ids(after)
            ids[job] = self._submit(job, [run(task) for task in job.tasks], after)

    def _submit(self, job: PlannedJob, works: Sequence[Any], after: Sequence[str]) -> list[str]:
        """Submit a job, or an array; returns the ids of its tasks.

        Args:
            job: the job.
            works: what each task runs.
            after: ids of the jobs that must have ended before.
        """
        ids = self._submitit.send(job, works, after)
        entries = [
            SubmittedStage(
                stage=stage.name,
                fingerprint=stage.fingerprint,
                folder=stage.folder,
                member=task.member,
                job=name.partition("_")[0] if self._executor == "slurm" else name,
                array_index=_array_index(name) if self._executor == "slurm" else None,
                executor=self._executor,
                profile=self.profile.name,
                host=platform.node(),
                resources=job.resources.model_dump(mode="json"),
                submitted=now(),
                depends_on=list(after),
                whatever=job.whatever,
                snapshot=work.snapshot.file.name,
                sources=dict(work.snapshot.sources),
            )
            for task, work, name in zip(job.tasks, works, ids, strict=True)
            for stage in task.stages
        ]
        for name in ids:  # of an earlier process with this number (executor local)
            self._jobs.unmark_canceled(name)
        with self._withdrawn_on_error(ids):
            self._jobs.add(entries)
        waits = f"; after {', '.join(after)}" if after else ""
        asked = f": {resources_text(job.resources)}" if self._executor == "slurm" else ""
        label = f"{len(works)} {job.label}" if job.label == ARRAY else job.label
        self._print(label, f"submitted as job {', '.join(_array_ids(ids))}{asked}{waits}")
        if self._executor == "debug":
            self._submitit.run_here(works)
        return ids

    @contextmanager
    def _withdrawn_on_error(self, ids: Sequence[str]) -> Iterator[None]:
        """End jobs that cannot be recorded: nobody would find them."""
        try:
            yield
        except BaseException as error:
            jobs = _array_ids(ids)
            try:
                if self._executor == "slurm":
                    end_jobs(jobs)
            except SlurmUnknownError as reason:
                raise RunError(
                    f"job {', '.join(jobs)} is not recorded: {error}; it cannot be canceled "
                    f"either: {reason}; cancel it with: scancel {' '.join(jobs)}"
                ) from error
            raise

    @property
    def _profile(self) -> Profile:
        return self.profile.profile

    def _print(self, name: str, text: str) -> None:
        self.console.print(Text.assemble((f"{name:<10}", "bold"), f" {text}"))


def _array_index(job: str) -> int | None:
    _, _, index = job.partition("_")
    return int(index) if index else None


def _array_ids(ids: Sequence[str]) -> list[str]:
    """The jobs without the indices of their tasks."""
    return list(dict.fromkeys(job.partition("_")[0] for job in ids))


def _is_alive(stage: SubmittedStage) -> bool:
    """Whether the process of a local job runs; unknown, and taken as ended, on another machine."""
    here = stage.executor == "local" and stage.host == platform.node()
    return here and process_runs(stage)
