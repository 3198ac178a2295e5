"""What would be submitted to run a recipe with a profile. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profile_settings import ALL_MEMORY, Profile, Resources
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.plan import PlannedStage, upstream_stages
from pae_framework.runs.planned import planned_stages


@dataclass(frozen=True)
class Submission:
    """The job of one stage, or the jobs of a stage of which the members of a sweep have several."""

    stage: str
    jobs: int
    resources: Resources
    after: tuple[str, ...]
    """Stages whose jobs must have succeeded, without those that they wait for themselves."""

    def plain(self) -> dict[str, Any]:
        """The submission in JSON types."""
        resources = self.resources.model_dump(mode="json")
        return {
            "stage": self.stage,
            "jobs": self.jobs,
            "processes": self.resources.processes,
            **resources,
            "after": list(self.after),
        }


def submissions(
    recipes: Sequence[LoadedRecipe], profile: Profile, store: Path, again: Collection[str] = ()
) -> list[Submission]:
    """The jobs of all unfinished stages, in the order they run; members of a sweep share stages.

    Args:
        recipes: the recipe, or the members of a sweep.
        profile: where they run.
        store: folder of their stages.
        again: stages that run anew, with all that depend on them.
    """
    folders: dict[str, str] = {}
    after: dict[str, set[str]] = {}
    for loaded in recipes:
        stages = planned_stages(loaded, store)
        unfinished = unfinished_stages(loaded, store, again)
        for name in unfinished:
            folders[stages[name].folder] = name
            after.setdefault(name, set()).update(direct_inputs(stages, name, unfinished))
    jobs = Counter(folders.values())
    return [
        Submission(
            name,
            jobs[name],
            profile.for_stage(name),
            tuple(stage for stage in STAGES if stage in after[name]),
        )
        for name in STAGES
        if name in jobs
    ]


def direct_inputs(
    stages: Mapping[str, PlannedStage], name: str, unfinished: Collection[str]
) -> set[str]:
    """The unfinished stages that a stage must wait for, without those that these wait for."""
    waits_for = {stage for stage in upstream_stages(stages, name) if stage in unfinished} - {name}
    implied = {earlier for stage in waits_for for earlier in upstream_stages(stages, stage)[:-1]}
    return waits_for - implied


def submission_line(submission: Submission, array_limit: int | None) -> str:
    """One line for the terminal: the jobs of a stage, what each asks for, what they wait for."""
    jobs = ""
    if submission.jobs > 1:
        limit = "" if array_limit is None else f", at most {array_limit} at once"
        jobs = f"{submission.jobs} jobs{limit}, each "
    waits = f"; after {', '.join(submission.after)}" if submission.after else ""
    return f"{submission.stage}: {jobs}{resources_text(submission.resources)}{waits}"


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


def slurm_parameters(profile: Profile, stage: str) -> dict[str, Any]:
    """The parameters of a stage's job for ``submitit.AutoExecutor.update_parameters``.

    Values that the profile leaves to the site are absent. Dependencies, names and folders are the
    launcher's.
    """
    resources = profile.for_stage(stage)
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


def _mem(resources: Resources) -> str | None:
    return "0" if resources.memory == ALL_MEMORY else resources.memory


def _flags(resources: Resources) -> dict[str, Any]:
    flags = resources.flags.items()
    return {name: value for name, value in flags if value is not None and value is not False}
