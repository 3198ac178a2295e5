"""Checks of profiles: names of stages, and resources that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pae_framework.errors import Inconsistency
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath
from pae_framework.recipe.profile_settings import Profile, Resources
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.suggestions import suggestion

_EARLY = 60
"""Seconds by which Slurm may send the signal of ``--signal`` too early (its manual)."""


def launch_stages(recipe: Recipe) -> Iterator[Inconsistency]:
    """Entries of ``launch.stages`` that name no stage."""
    if recipe.launch is not None:
        yield from unknown_stages(recipe.launch, ("launch",))


def unknown_stages(profile: Profile, path: KeyPath = ()) -> Iterator[Inconsistency]:
    """Entries of ``stages`` that name no stage of any recipe."""
    for name in profile.stages.keys() - STAGES.keys():
        yield Inconsistency((*path, "stages", name), "no such stage", suggestion(name, STAGES))


def contradictions(profile: Profile) -> Iterator[Inconsistency]:
    """Resources of a profile that cannot be had together, and those of stages that differ."""
    common = [*_contradictions(profile, profile.executor), *_late_signal(profile, profile)]
    yield from common
    known = {found.message for found in common}
    for stage in profile.stages:
        asked = profile.for_stage(stage)
        for found in (*_contradictions(asked, profile.executor), *_late_signal(profile, asked)):
            if found.message not in known:
                yield replace(found, path=("stages", stage, *found.path))


def _contradictions(asked: Resources, executor: str) -> Iterator[Inconsistency]:
    tasks, gpus = asked.processes_per_node, sum(asked.gpus.values())
    if executor == "slurm" and asked.time is None:
        message = "missing: a job without a time limit gets the site's, which may be minutes"
        yield Inconsistency(("time",), message, "set time=12:00:00, for example")
    if gpus and tasks > gpus:
        yield Inconsistency(
            ("tasks_per_node",),
            f"{tasks} processes on each node, but {gpus} GPUs; each process needs its own",
            f"set tasks_per_node={gpus}, or remove it",
        )
    if executor != "slurm" and asked.nodes > 1:
        yield Inconsistency(
            ("nodes",),
            f"the executor {executor!r} has one node: this machine; found {asked.nodes}",
            "set executor=slurm, or remove nodes",
        )
    if executor == "debug" and tasks > 1:
        yield Inconsistency(
            ("tasks_per_node" if asked.tasks_per_node else "gpus_per_node",),
            f"the executor 'debug' has one process: this one; found {tasks}",
            "set executor=local for more",
        )


def _late_signal(profile: Profile, asked: Resources) -> Iterator[Inconsistency]:
    """A job that is told to save before it could begin; Slurm may tell it a minute early."""
    needed = profile.signal_before + _EARLY
    if profile.executor != "slurm" or asked.minutes is None or asked.minutes * 60 > needed:
        return
    yield Inconsistency(
        ("time",),
        f"{asked.time}, but the job is told to save {profile.signal_before} s before that, and "
        f"Slurm may tell it {_EARLY} s earlier: at once",
        "set a longer time, or a shorter signal_before",
    )
