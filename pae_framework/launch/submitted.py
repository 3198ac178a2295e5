"""Submit the unfinished stages of a recipe as jobs, through submitit. No torch.

On Slurm each stage is a job with its own resources, which starts when the jobs of the stages that
it reads have succeeded. Of a sweep, the stages that members share come first; then one array with a
task per member runs the rest. The executors local and debug have one job that runs everything.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
import sysconfig
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.text import Text

from pae_framework.errors import RunError, UsageError
from pae_framework.launch.description import DescribedRun, describe_run
from pae_framework.launch.job import (
    VISIBLE_DEVICES,
    ComparisonJob,
    JobRules,
    Snapshot,
    StageJob,
    SweepJob,
    short_grace,
    versions,
)
from pae_framework.launch.job_script import deaf_at_start, srun_function
from pae_framework.launch.run_sweep import describe_sweep, member_directory
from pae_framework.launch.submission import direct_inputs, resources_text, slurm_parameters
from pae_framework.preflight.machine import this_machine
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profile_settings import Profile, Resources
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.recipe.sweep import Member
from pae_framework.registry import Registry
from pae_framework.runs.directory import RunDirectory, digest_of_text
from pae_framework.runs.job_status import process_runs
from pae_framework.runs.jobs import COMPARISON, RunJobs, SubmittedStage, now
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.sources import source_hashes
from pae_framework.system.console import PlainConsole
from pae_framework.system.file_errors import writing
from pae_framework.system.files import make_folder, write_text
from pae_framework.system.slurm import (
    SlurmUnknownError,
    foreign_settings,
    outside_allocations,
    queued_jobs,
)
from pae_framework.system.slurm_jobs import NAME_PREFIX

_COMPARISON = PlannedStage(COMPARISON, "", ())
_YEAR_MINUTES = 366 * 24 * 60


@dataclass(frozen=True)
class _Work:
    """Stages for one job.

    Args:
        job: what the job runs.
        stages: the stages in it.
        member: the member of a sweep that needs them.
    """

    job: Any
    stages: Sequence[PlannedStage]
    member: str | None = None


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
            UsageError: this machine has no Slurm.
        """
        self._prepare()
        with self.directory.lock():
            described = describe_run(loaded, self.directory, self.command, self.console)
            if not described.unfinished:
                self.directory.link_report()
                self.console.print("no job: every stage is done")
            elif self._executor == "slurm":
                self._submit_chain(loaded, described)
            else:
                self._submit_whole(loaded, described)

    def submit_sweep(self, loaded: LoadedRecipe, members: list[Member]) -> None:
        """Submit the unfinished stages of members of a sweep, and the report of all.

        Raises:
            RunError: another process holds the sweep, or a job is not accepted.
            UsageError: this machine has no Slurm.
        """
        self._prepare()
        with self.directory.lock():
            describe_sweep(loaded, self.directory, members, self.command)
            described = {member.name: self._described(member) for member in members}
            if self._executor == "slurm":
                self._submit_members(loaded, members, described)
            else:
                self._submit_whole_sweep(loaded, members, described)

    # --- what goes into one job -------------------------------------------------------------------

    def _submit_chain(self, loaded: LoadedRecipe, described: DescribedRun) -> None:
        """One job for each stage."""
        ids: dict[str, str] = {}
        stages, unfinished = described.stages, described.unfinished
        for name in unfinished:
            if (queued := self._queued(stages[name])) is not None:
                ids[name] = queued
                continue
            waits_for = direct_inputs(stages, name, unfinished)
            after = [ids[stage] for stage in unfinished if stage in waits_for]
            work = self._stage_work(loaded, self.directory, [stages[name]])
            (ids[name],) = self._submit(name, [work], name, after)

    def _submit_whole(self, loaded: LoadedRecipe, described: DescribedRun) -> None:
        """One job for all stages."""
        stages = [described.stages[name] for name in described.unfinished]
        if self._any_queued(stages):
            return
        work = self._stage_work(loaded, self.directory, stages)
        self._submit(", ".join(described.unfinished), [work], self._largest(stages), [])

    def _submit_members(
        self,
        loaded: LoadedRecipe,
        members: Sequence[Member],
        described: Mapping[str, DescribedRun],
    ) -> None:
        """Shared stages, then an array with the other stages of each member, then the report."""
        needed = Counter(
            run.stages[name].folder for run in described.values() for name in run.unfinished
        )
        ids: dict[str, str] = {}
        tasks: list[_Work] = []
        for member in members:
            run, own = described[member.name], list[PlannedStage]()
            for name in run.unfinished:
                stage = run.stages[name]
                if stage.folder in ids:
                    continue
                if (queued := self._queued(stage)) is not None:
                    ids[stage.folder] = queued
                elif needed[stage.folder] == 1:
                    own.append(stage)
                else:
                    waits_for = direct_inputs(run.stages, name, run.unfinished)
                    after = [ids[run.stages[earlier].folder] for earlier in sorted(waits_for)]
                    directory = member_directory(self.directory, member)
                    work = self._stage_work(member.loaded, directory, [stage], member.name)
                    (ids[stage.folder],) = self._submit(name, [work], name, after)
            if own:
                directory = member_directory(self.directory, member)
                tasks.append(self._stage_work(member.loaded, directory, own, member.name))
        before = list(dict.fromkeys(ids.values()))
        if tasks:
            largest = self._largest([stage for task in tasks for stage in task.stages])
            label = f"{len(tasks)} member{'' if len(tasks) == 1 else 's'}"
            before += self._submit("members", tasks, largest, before, label)
        if tasks or self._queued(_COMPARISON) is None:
            job = ComparisonJob(self._absolute, self._snapshot(loaded), self._rules, self._absolute)
            work = _Work(job, [_COMPARISON])
            self._submit(COMPARISON, [work], "report", _array_ids(before), kind="afterany")

    def _submit_whole_sweep(
        self,
        loaded: LoadedRecipe,
        members: Sequence[Member],
        described: Mapping[str, DescribedRun],
    ) -> None:
        """One job for all members."""
        unfinished = {
            run.stages[name].folder: run.stages[name]
            for run in described.values()
            for name in run.unfinished
        }
        stages = [*unfinished.values(), _COMPARISON]
        if self._any_queued(stages):
            return
        names = tuple(member.name for member in members)
        job = SweepJob(
            self._absolute, self._snapshot(loaded), self._rules, self._absolute, names, self.command
        )
        work = _Work(job, stages)
        self._submit(f"{len(names)} members", [work], self._largest(work.stages), [])

    def _described(self, member: Member) -> DescribedRun:
        directory = member_directory(self.directory, member)
        with directory.lock():
            return describe_run(member.loaded, directory, self.command, self.console)

    def _stage_work(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        stages: Sequence[PlannedStage],
        member: str | None = None,
    ) -> _Work:
        for stage in stages:
            warning = short_grace(directory.stage(stage), self._rules.seconds)
            if warning is not None:
                self.console.print(f"warning: {warning}")
        job = StageJob(
            self._absolute,
            self._snapshot(loaded),
            self._rules,
            directory.path.absolute(),
            directory.store.absolute(),
            {stage.name: stage.fingerprint for stage in stages},
            self.command,
        )
        return _Work(job, stages, member)

    # --- what every job has -----------------------------------------------------------------------

    @property
    def _executor(self) -> str:
        return self.profile.profile.executor

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
            known = min(profile.signal_before, profile.grace or profile.signal_before)
        return JobRules(self._executor, profile.max_restarts_without_progress, known, self.command)

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
        )

    @cached_property
    def _code(self) -> tuple[dict[str, str], dict[str, str]]:
        """Versions of packages and hashes of code, at submission."""
        return versions(self.registry), source_hashes(self.registry)

    def _prepare(self) -> None:
        """Check that jobs can be submitted, and tell what is left out."""
        make_folder(self._jobs.folder)
        if self._executor != "slurm":
            return
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise UsageError(
                f"profile {self.profile.name} submits to Slurm, but sbatch and srun are not on "
                "PATH; run it where Slurm is installed, or choose --on local"
            )
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
        waiting: set[str] = set()
        if any(stage.executor == "slurm" for stage in submitted):
            try:
                waiting = set(queued_jobs())
            except SlurmUnknownError as error:
                if self._executor != "slurm":  # locks keep two processes from one stage
                    self.console.print(f"jobs of the run in Slurm's queue are unknown: {error}")
                    return self._alive(submitted, waiting)
                raise RunError(
                    f"Slurm does not say which jobs of the run have not ended: {error}; nothing "
                    "was submitted"
                ) from None
        return self._alive(submitted, waiting)

    def _alive(
        self, submitted: Iterable[SubmittedStage], waiting: Collection[str]
    ) -> Mapping[str, SubmittedStage]:
        return {
            stage.folder: stage
            for stage in submitted
            if (stage.id in waiting if stage.executor == "slurm" else _is_alive(stage))
        }

    def _queued(self, stage: PlannedStage) -> str | None:
        """The job of a stage that has not ended; says that the stage is not submitted again."""
        found = self._unended.get(stage.folder)
        if found is None:
            return None
        self._print(stage.name, f"is in job {found.id} already")
        return found.id

    def _any_queued(self, stages: Iterable[PlannedStage]) -> bool:
        """Whether any of the stages is in a job that has not ended; says so of each."""
        return any(job is not None for job in [self._queued(stage) for stage in stages])

    def _submit(
        self,
        label: str,
        works: Sequence[_Work],
        largest: str,
        after: Sequence[str],
        text: str = "",
        kind: str = "afterok",
    ) -> list[str]:
        """Submit jobs that are alike, as an array if there are several; returns their ids.

        Args:
            label: what the jobs are for, in their name and for the user.
            works: what they run.
            largest: the stage whose resources they get.
            after: ids of the jobs that must have ended before.
            text: what they are for, for the user; empty: the label.
            kind: how those jobs must have ended, as Slurm writes it.
        """
        resources = self.profile.profile.for_stage(largest)
        ids = self._sent(label, works, largest, after, kind)
        entries = [
            SubmittedStage(
                stage=stage.name,
                fingerprint=stage.fingerprint,
                folder=stage.folder,
                member=work.member,
                job=job.partition("_")[0] if self._executor == "slurm" else job,
                array_index=_array_index(job) if self._executor == "slurm" else None,
                executor=self.profile.profile.executor,
                profile=self.profile.name,
                host=platform.node(),
                resources=resources.model_dump(mode="json"),
                submitted=now(),
                depends_on=list(after),
                snapshot=work.job.snapshot.file.name,
                sources=dict(work.job.snapshot.sources),
            )
            for work, job in zip(works, ids, strict=True)
            for stage in work.stages
        ]
        self._jobs.add(entries)
        waits = f"; after {', '.join(after)}" if after else ""
        asked = f": {resources_text(resources)}" if self._executor == "slurm" else ""
        self._print(text or label, f"submitted as job {', '.join(_array_ids(ids))}{asked}{waits}")
        if self._executor == "debug":
            self._run_here(works)
        return ids

    def _sent(
        self,
        label: str,
        works: Sequence[_Work],
        largest: str,
        after: Sequence[str],
        kind: str,
    ) -> list[str]:
        """Hand the jobs to submitit; returns their ids."""
        if self._executor == "debug":
            return [f"debug-{os.getpid()}"]
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with writing(self._jobs.folder):
                if self._executor == "local":
                    return self._sent_local(works)
                return self._sent_to_slurm(label, works, largest, after, kind)
        except (FailedJobError, FailedSubmissionError) as error:
            reason = (str(error).strip().splitlines() or ["no reason is given"])[-1]
            raise RunError(
                f"the job of {label} is not accepted: {reason}; jobs that were submitted before "
                "it stay in the queue"
            ) from error

    def _sent_to_slurm(
        self, label: str, works: Sequence[_Work], largest: str, after: Sequence[str], kind: str
    ) -> list[str]:
        import submitit

        executor = submitit.AutoExecutor(
            folder=self._jobs.folder, cluster="slurm", slurm_python=deaf_at_start(sys.executable)
        )
        executor.update_parameters(**self._parameters(label, largest, after, kind))
        with outside_allocations({"PYTHONPATH": _python_path()}):
            if len(works) == 1:
                return [executor.submit(works[0].job).job_id]
            return [job.job_id for job in executor.submit_array([work.job for work in works])]

    def _parameters(
        self, label: str, largest: str, after: Sequence[str], kind: str
    ) -> dict[str, Any]:
        """Submitit's parameters of a job."""
        given = slurm_parameters(self.profile.profile, largest)
        additional = dict(given.get("slurm_additional_parameters", {}))
        additional["requeue"] = True
        if after:
            additional["dependency"] = f"{kind}:{':'.join(after)}"
            additional["kill-on-invalid-dep"] = "yes"
        python_path = f"export PYTHONPATH={shlex.quote(_python_path())}"
        setup = [python_path, srun_function(self._jobs.folder)]
        srun = ["--kill-on-bad-exit=1", "--open-mode=append", *given.get("slurm_srun_args", [])]
        return {
            **given,
            "name": _job_name(self._absolute.name, label),
            "stderr_to_stdout": True,
            "slurm_additional_parameters": additional,
            "slurm_setup": [*setup, *given.get("slurm_setup", [])],
            "slurm_srun_args": srun,
        }

    def _sent_local(self, works: Sequence[_Work]) -> list[str]:
        import submitit

        executor = submitit.LocalExecutor(self._jobs.folder)
        (work,) = works
        resources = self.profile.profile.for_stage(self._largest(work.stages))
        executor.update_parameters(
            timeout_min=_YEAR_MINUTES,
            tasks_per_node=_local_processes(resources),
            stderr_to_stdout=True,
            setup=self.profile.profile.setup,
        )
        extra = {"PYTHONPATH": _python_path()}
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            extra[VISIBLE_DEVICES] = os.environ["CUDA_VISIBLE_DEVICES"]
        with outside_allocations(extra), _streams_into(self._jobs.folder / "local.log"):
            return [executor.submit(work.job).job_id]

    def _run_here(self, works: Sequence[_Work]) -> None:
        """Run jobs in this process (executor debug)."""
        import submitit

        executor = submitit.DebugExecutor(self._jobs.folder)
        for work in works:
            if (error := executor.submit(work.job).exception()) is not None:
                raise error

    def _largest(self, stages: Sequence[PlannedStage]) -> str:
        """The stage that asks for most."""
        return max((stage.name for stage in stages), key=lambda name: _size(self._profile, name))

    @property
    def _profile(self) -> Profile:
        return self.profile.profile

    def _print(self, name: str, text: str) -> None:
        self.console.print(Text.assemble((f"{name:<10}", "bold"), f" {text}"))


def _size(profile: Profile, stage: str) -> tuple[int, int, int, int]:
    asked = profile.for_stage(stage)
    gpus = asked.nodes * (asked.gpus_per_node or 0)
    return gpus, asked.processes, asked.mib or 0, asked.minutes or 0


def _local_processes(resources: Resources) -> int:
    """Processes on this machine; one per visible GPU unless the profile says how many."""
    return resources.tasks_per_node or resources.gpus_per_node or len(this_machine().gpus) or 1


def _array_index(job: str) -> int | None:
    _, _, index = job.partition("_")
    return int(index) if index else None


def _array_ids(ids: Sequence[str]) -> list[str]:
    """The jobs without the indices of their tasks."""
    return list(dict.fromkeys(job.partition("_")[0] for job in ids))


def _job_name(run: str, label: str) -> str:
    """A name for the queue, of characters that every tool of Slurm shows."""
    return re.sub(r"[^\w.+-]+", "-", f"{NAME_PREFIX}{run}-{label}")[:100]


def _python_path() -> str:
    """Where this process finds packages, for the processes of a job.

    Without the interpreter's own folders: they would mislead other versions of Python, such as that
    of a module or conda in the profile's ``setup``.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    own = [Path(sysconfig.get_path(name)) for name in names]
    own.append(own[0].with_name(f"python{sys.version_info.major}{sys.version_info.minor}.zip"))
    paths = [Path(path).absolute() for path in sys.path if path]
    return os.pathsep.join(
        str(path) for path in paths if not any(path.is_relative_to(folder) for folder in own)
    )


def _is_alive(stage: SubmittedStage) -> bool:
    """Whether the process of a local job runs; unknown, and taken as ended, on another machine."""
    here = stage.executor == "local" and stage.host == platform.node()
    return here and process_runs(stage)


@contextmanager
def _streams_into(path: Path) -> Iterator[None]:
    """Give what is started inside no terminal and no pipe of this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in range(3)]
    with Path(os.devnull).open("rb") as nothing, path.open("ab") as log:
        try:
            for number, file in enumerate((nothing, log, log)):
                os.dup2(file.fileno(), number)
            yield
        finally:
            for number, copy in enumerate(saved):
                os.dup2(copy, number)
                os.close(copy)
