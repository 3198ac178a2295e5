"""The jobs of a run or a sweep with a profile: stages, resources, dependencies. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.launch.description import DescribedRun
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profile_settings import ALL_MEMORY, Profile, Resources
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.jobs import COMPARISON
from pae_framework.runs.plan import PlannedStage, upstream_stages
from pae_framework.runs.planned import planned_stages

COMPARISON_STAGE = PlannedStage(COMPARISON, "", ())
"""Stands for the job that writes the results and the report of a sweep."""
ARRAY = "members"
"""Label of the job with the stages that single members of a sweep need."""


@dataclass(frozen=True)
class Task:
    """What one job, or one task of an array, runs."""

    stages: tuple[PlannedStage, ...]
    member: str | None = None
    """The member of a sweep that needs them."""


@dataclass(frozen=True, eq=False)
class PlannedJob:
    """A job to submit, or an array of jobs that are alike."""

    label: str
    """A stage, ``members``, ``comparison``, or all stages."""
    tasks: tuple[Task, ...]
    """Several: an array."""
    resources: Resources
    """What each task gets."""
    after: tuple[PlannedJob | str, ...] = ()
    """What must have ended before: jobs that are to be submitted, and ids of those in the queue."""
    whatever: bool = False
    """Whether it also runs if those failed."""

    @property
    def stages(self) -> list[PlannedStage]:
        """Those of all its tasks."""
        return [stage for task in self.tasks for stage in task.stages]


Queued = Callable[[PlannedStage, Sequence[str] | None], str | None]
"""The id of a job of a stage that has not ended and can still succeed; None: submit one.

Its second argument are the ids of the jobs that the stage must wait for; None if one of them is yet
to be submitted.
"""


def planned_run(loaded: LoadedRecipe, store: Path, again: Collection[str] = ()) -> DescribedRun:
    """The stages of a run as they would be described; writes nothing.

    Args:
        loaded: the recipe, without a sweep.
        store: folder of its stages.
        again: stages that run anew, with all that depend on them.
    """
    stages, unfinished = planned_stages(loaded, store), unfinished_stages(loaded, store, again)
    names = list(stages)
    return DescribedRun(stages, names, [name for name in names if name in unfinished])


def chain_jobs(run: DescribedRun, profile: Profile, queued: Queued) -> list[PlannedJob]:
    """A job for each unfinished stage that is in no job yet, in the order they run."""
    found: dict[str, PlannedJob | str] = {}
    for name in run.unfinished:
        stage = run.stages[name]
        waits_for = direct_inputs(run.stages, name, run.unfinished)
        after = tuple(found[earlier] for earlier in run.unfinished if earlier in waits_for)
        task, asked = Task((stage,)), profile.for_stage(name)
        job = queued(stage, _ids(after))
        found[name] = PlannedJob(name, (task,), asked, after) if job is None else job
    return [job for job in found.values() if isinstance(job, PlannedJob)]


def sweep_jobs(
    runs: Mapping[str, DescribedRun], profile: Profile, queued: Queued
) -> list[PlannedJob]:
    """A job for each shared stage, an array of the other stages of each member, and the report.

    Args:
        runs: the members by name.
        profile: where the jobs run.
        queued: tells which stages are in a job already.
    """
    needed = Counter(run.stages[name].folder for run in runs.values() for name in run.unfinished)
    found: dict[str, PlannedJob | str] = {}
    tasks: list[Task] = []
    for member, run in runs.items():
        own: list[PlannedStage] = []
        for name in run.unfinished:
            stage = run.stages[name]
            if stage.folder in found:
                continue
            waits_for = sorted(direct_inputs(run.stages, name, run.unfinished))
            inputs = [found.get(run.stages[earlier].folder) for earlier in waits_for]
            if (job := queued(stage, _ids(inputs))) is not None:
                found[stage.folder] = job
            elif needed[stage.folder] == 1:
                own.append(stage)
            else:
                after = tuple(earlier for earlier in inputs if earlier is not None)
                task, asked = Task((stage,), member), profile.for_stage(name)
                found[stage.folder] = PlannedJob(name, (task,), asked, after)
        if own:
            tasks.append(Task(tuple(own), member))
    before = tuple(found.values())
    jobs = [job for job in before if isinstance(job, PlannedJob)]
    if tasks:
        asked = most_of(profile, [stage for task in tasks for stage in task.stages])
        # A shared stage that fails only ends the tasks that need it.
        jobs.append(PlannedJob(ARRAY, tuple(tasks), asked, before, whatever=True))
        before = (*before, jobs[-1])
    if tasks or queued(COMPARISON_STAGE, []) is None:
        asked = profile.for_stage("report")
        comparison = (Task((COMPARISON_STAGE,)),)
        jobs.append(PlannedJob(COMPARISON, comparison, asked, before, whatever=True))
    return jobs


def _ids(jobs: Iterable[PlannedJob | str | None]) -> list[str] | None:
    """The ids of jobs; None if one is yet to be submitted."""
    found = list(jobs)
    ids = [job for job in found if isinstance(job, str)]
    return ids if len(ids) == len(found) else None


def whole_job(run: DescribedRun, profile: Profile) -> PlannedJob:
    """One job for all unfinished stages of a run, of which there is at least one."""
    stages = tuple(run.stages[name] for name in run.unfinished)
    return _whole(", ".join(run.unfinished), stages, profile)


def whole_sweep_job(runs: Mapping[str, DescribedRun], profile: Profile) -> PlannedJob:
    """One job for all members of a sweep and its report."""
    stages = {
        run.stages[name].folder: run.stages[name]
        for run in runs.values()
        for name in run.unfinished
    }
    return _whole(f"{len(runs)} members", (*stages.values(), COMPARISON_STAGE), profile)


def _whole(label: str, stages: tuple[PlannedStage, ...], profile: Profile) -> PlannedJob:
    return PlannedJob(label, (Task(stages),), most_of(profile, stages))


def most_of(profile: Profile, stages: Iterable[PlannedStage]) -> Resources:
    """What a job with several stages asks for.

    It has the nodes and processes of the stage with the most GPUs, and the most CPUs, memory and
    time of any. The report of a sweep asks for what that of a run does.
    """
    names = {"report" if stage.name == COMPARISON else stage.name for stage in stages}
    asked = [profile.for_stage(name) for name in STAGES if name in names]
    largest = max(asked, key=lambda each: (each.nodes * sum(each.gpus.values()), each.processes))
    most = {
        "cpus_per_task": max((each.cpus_per_task or 0 for each in asked), default=0) or None,
        "memory": max(asked, key=_memory).memory,
        "time": max(asked, key=lambda each: each.minutes or 0).time,
    }
    return largest.model_copy(update=most)


def _memory(asked: Resources) -> float:
    return float("inf") if asked.memory == ALL_MEMORY else asked.mib or 0


def direct_inputs(
    stages: Mapping[str, PlannedStage], name: str, unfinished: Collection[str]
) -> set[str]:
    """The unfinished stages that a stage must wait for, without those that these wait for."""
    waits_for = {stage for stage in upstream_stages(stages, name) if stage in unfinished} - {name}
    implied = {earlier for stage in waits_for for earlier in upstream_stages(stages, stage)[:-1]}
    return waits_for - implied


@dataclass(frozen=True)
class JobsOfLabel:
    """The jobs of one label, as a dry run shows them."""

    stage: str
    """The label: a stage, ``members`` or ``comparison``."""
    stages: tuple[str, ...]
    """Stages of at least one of them, in the order they run."""
    jobs: int
    """Their number; ``members``: of tasks of an array."""
    resources: Resources
    after: tuple[str, ...]
    """Labels, and ids of jobs in the queue."""
    at_once: int | None = None
    """How many tasks of the array run at once; None: no limit."""

    def plain(self) -> dict[str, Any]:
        """The jobs in JSON types."""
        own = {"stage": self.stage, "stages": list(self.stages), "jobs": self.jobs}
        asked = {"processes": self.resources.processes, **self.resources.model_dump(mode="json")}
        return {**own, "at_once": self.at_once, **asked, "after": list(self.after)}

    def __str__(self) -> str:
        """One line for the terminal."""
        many = ""
        if self.stage == ARRAY:
            limit = "" if self.at_once is None else f", at most {self.at_once} at once"
            many = (
                f"{_counted(self.jobs, 'task')} of an array{limit}, with {', '.join(self.stages)}: "
            )
        elif self.jobs > 1:
            many = f"{self.jobs} jobs, each "
        waits = f"; after {', '.join(self.after)}" if self.after else ""
        return f"{self.stage}: {many}{resources_text(self.resources)}{waits}"


def by_label(jobs: Sequence[PlannedJob], profile: Profile) -> list[JobsOfLabel]:
    """The jobs to submit, in the order of the first of each label."""
    found: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        found.setdefault(job.label, []).append(job)
    return [
        JobsOfLabel(
            label,
            _in_order(stage.name for job in alike for stage in job.stages),
            sum(len(job.tasks) for job in alike),
            alike[0].resources,
            tuple(dict.fromkeys(_label(earlier) for job in alike for earlier in job.after)),
            profile.array_limit if label == ARRAY else None,
        )
        for label, alike in found.items()
    ]


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    found = set(names)
    return tuple(name for name in (*STAGES, COMPARISON) if name in found)


def _label(job: PlannedJob | str) -> str:
    return f"job {job}" if isinstance(job, str) else job.label


def resources_text(asked: Resources) -> str:
    """What a job asks for, in words."""
    parts = [
        None if asked.partition is None else f"partition {asked.partition}",
        _counted(asked.nodes, "node"),
        _counted(asked.processes, "process"),
        _counted(asked.gpus_per_node, "GPU", " per node"),
        _counted(asked.cpus_per_task, "CPU", " per process"),
        None if asked.memory is None else f"memory {asked.memory} per node",
        asked.time,
    ]
    return ", ".join(part for part in parts if part)


def _counted(number: int | None, noun: str, per: str = "") -> str | None:
    if not number:
        return None
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural}{per}"


def slurm_parameters(profile: Profile, resources: Resources) -> dict[str, Any]:
    """The parameters of a job for ``submitit.AutoExecutor.update_parameters``.

    Values that the profile leaves to the site are absent. Dependencies, names and folders are the
    executor's.
    """
    parameters = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.processes_per_node,
        "gpus_per_node": resources.gpus_per_node or None,
        "cpus_per_task": resources.cpus_per_task,
        "mem": _mem(resources),
        "time": resources.minutes,
        "signal_delay_s": profile.signal_before,
        "array_parallelism": profile.array_limit,
        "setup": list(profile.setup) or None,
        "srun_args": list(profile.srun_args) or None,
        "additional_parameters": _flags(resources) or None,
    }
    return {f"slurm_{key}": value for key, value in parameters.items() if value is not None}


_PARAMETERS = {
    "tasks_per_node": "ntasks_per_node",
    "memory": "mem",
    "signal_before": "signal_delay_s",
    "array_limit": "array_parallelism",
    "flags": "additional_parameters",
}
"""Key of a profile -> parameter of submitit, if their names differ."""


def sbatch_terms(profile: Profile, stage: str = "") -> dict[str, str]:
    """What values of a profile become for sbatch, by key; absent: nothing, or no job of Slurm.

    Args:
        profile: the profile.
        stage: the stage of the job; empty: one for which nothing differs.
    """
    if profile.executor != "slurm":
        return {}
    given = slurm_parameters(profile, profile.for_stage(stage))
    found = {key: given.get(f"slurm_{_PARAMETERS.get(key, key)}") for key in Profile.model_fields}
    return {key: _term(key, value) for key, value in found.items() if value is not None}


def _term(key: str, value: Any) -> str:
    if key == "signal_before":
        return f"--signal=USR2@{value}"
    if key == "array_limit":
        return f"--array=0-N%{value}"
    if key == "setup":
        return "lines of the job's script"
    if key == "srun_args":
        return f"srun {' '.join(value)}"
    if key == "flags":
        return " ".join(f"--{k}" if v is True else f"--{k}={v}" for k, v in value.items())
    return f"--{_PARAMETERS.get(key, key).replace('_', '-')}={value}"


def _mem(resources: Resources) -> str | None:
    return "0" if resources.memory == ALL_MEMORY else resources.memory


def _flags(resources: Resources) -> dict[str, Any]:
    flags = resources.flags.items()
    return {name: value for name, value in flags if value is not None and value is not False}
