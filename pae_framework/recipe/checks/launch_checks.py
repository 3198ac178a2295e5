"""Checks of profiles: names of stages, and resources that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.errors import Inconsistency
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath
from pae_framework.recipe.profile_settings import Profile
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.suggestions import suggestion


def launch_stages(recipe: Recipe) -> Iterator[Inconsistency]:
    """Entries of ``launch.stages`` that name no stage."""
    if recipe.launch is not None:
        yield from unknown_stages(recipe.launch, ("launch",))


def unknown_stages(profile: Profile, path: KeyPath = ()) -> Iterator[Inconsistency]:
    """Entries of ``stages`` that name no stage of any recipe."""
    for name in profile.stages.keys() - STAGES.keys():
        yield Inconsistency((*path, "stages", name), "no such stage", suggestion(name, STAGES))


def contradictions(profile: Profile) -> Iterator[Inconsistency]:
    """Resources of a whole profile, or of one of its stages, that cannot be had together."""
    for stage in (None, *profile.stages):
        path: KeyPath = () if stage is None else ("stages", stage)
        own = profile if stage is None else profile.for_stage(stage)
        tasks, gpus = own.processes_per_node, own.gpus_per_node
        if profile.executor == "slurm" and own.time is None:
            message = "missing: a job without a time limit gets the site's, which may be minutes"
            yield Inconsistency((*path, "time"), message, "set time=12:00:00, for example")
        if gpus and tasks > gpus:
            yield Inconsistency(
                (*path, "tasks_per_node"),
                f"{tasks} processes on each node, but {gpus} GPUs; each process needs its own",
                f"set tasks_per_node={gpus}, or remove it",
            )
        if profile.executor != "slurm" and own.nodes > 1:
            yield Inconsistency(
                (*path, "nodes"),
                f"the executor {profile.executor!r} has one node: this machine; found {own.nodes}",
                "set executor=slurm, or remove nodes",
            )
        if profile.executor == "debug" and tasks > 1:
            yield Inconsistency(
                (*path, "tasks_per_node" if own.tasks_per_node else "gpus_per_node"),
                f"the executor 'debug' has one process: this one; found {tasks}",
                "set executor=local for more",
            )
