"""What keeps a recipe from running in jobs of a profile. No torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.preflight.machine import Machine
from pae_framework.preflight.memory import training_memory
from pae_framework.preflight.processes import Sharing
from pae_framework.preflight.requirements import missing_requirements, unfinished_stages
from pae_framework.preflight.saves import short_graces
from pae_framework.preflight.site_checks import delayed, refused
from pae_framework.preflight.slurm_site import Site, ask_site
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.recipe.stage_table import STAGES
from pae_framework.system.file_errors import gib
from pae_framework.system.slurm import SlurmUnknownError

_UNKNOWN_MACHINE = Machine(None, (0,))
"""In place of the machine of a job, whose memory and GPUs are compared with the profile."""


@dataclass(frozen=True)
class JobsPreflight:
    """What is known of the jobs of a recipe before they are submitted."""

    missing: tuple[Problem, ...]
    """Data and weights that the run lacks."""
    refused: tuple[Problem, ...]
    """What recipe and site do not allow of the profile."""
    tight: tuple[Problem, ...]
    """What may not suffice, or makes jobs wait; worth a warning."""
    site: str
    """How the site was asked, or why it was not."""


def examine_jobs(
    recipes: Sequence[LoadedRecipe],
    profile: FoundProfile,
    store: Path | None,
    again: Collection[str] = (),
) -> JobsPreflight:
    """Compare the unfinished stages of some recipes with a profile of Slurm, and with the site.

    Args:
        recipes: the recipes to run.
        profile: where they run.
        store: folder of their stages; None: none is done.
        again: stages that run anew, with all that depend on them.
    """
    stages = stages_to_run(recipes, store, again)
    sharing = Sharing(recipes, store, profile, again)
    try:
        site, told = ask_site(), "checked with sinfo"
        told = "; ".join((told, *(f"not checked: {reason}" for reason in site.unknown)))
    except SlurmUnknownError as error:
        site, told = Site(()), f"not checked: {error}"
    refusals = [*refused(profile, stages, site), *sharing.impossible()]
    warnings = [*delayed(profile, stages, site), *sharing.uneven()]
    for loaded in recipes:
        unfinished = unfinished_stages(loaded, store, again)
        refusals += _without_gpu(loaded, profile, unfinished)
        refusals += _memory(loaded, profile, unfinished, above=2)
        warnings += _memory(loaded, profile, unfinished, above=1, up_to=2)
    warnings += short_graces(profile, stages, store, site.kill_wait)
    return JobsPreflight(
        tuple(missing_requirements(recipes, store, _UNKNOWN_MACHINE, again)),
        tuple(dict.fromkeys(refusals)),
        tuple(dict.fromkeys(warnings)),
        told,
    )


def stages_to_run(
    recipes: Sequence[LoadedRecipe], store: Path | None, again: Collection[str] = ()
) -> list[str]:
    """Names of the unfinished stages of any of the recipes, in the order they run."""
    unfinished = {name for loaded in recipes for name in unfinished_stages(loaded, store, again)}
    return [name for name in STAGES if name in unfinished]


def _without_gpu(
    loaded: LoadedRecipe, profile: FoundProfile, stages: Collection[str]
) -> Iterator[Problem]:
    """Jobs without a GPU, which every stage needs if the device is cuda."""
    if loaded.recipe.runtime.device != "cuda":
        return
    for stage in (name for name in STAGES if name in stages):
        if not profile.profile.for_stage(stage).gpus:
            message = f"runtime.device is cuda, but the job of {stage} has no GPU"
            hint = "set gpus_per_node=1 or more, or runtime.device=auto in the recipe"
            yield profile.problem(message, "gpus_per_node", stage, hint)


def _memory(
    loaded: LoadedRecipe,
    profile: FoundProfile,
    stages: Collection[str],
    above: float,
    up_to: float = math.inf,
) -> Iterator[Problem]:
    """Trainings that need more memory than their nodes are asked for.

    Memory of GPUs is unknown: a profile does not state it. A training on GPUs needs main memory for
    the copy that a checkpoint is written from.
    """
    for estimate in training_memory(loaded.recipe):
        asked = profile.profile.for_stage(estimate.stage)
        on_gpu = loaded.recipe.runtime.device != "cpu" and bool(asked.gpus)
        if estimate.stage not in stages or asked.mib is None:
            continue
        available, shared = asked.mib << 20, (asked.processes, asked.processes_per_node)
        copy = estimate.checkpoint
        needed = copy if on_gpu else estimate.needed(*shared, copy)
        if above * available < needed <= up_to * available:
            what = estimate.text(*shared, copy)
            if on_gpu:
                what = (
                    f"stage {estimate.stage} needs about {gib(copy)} of main memory for the copy "
                    "that a checkpoint is written from"
                )
            message = f"{what}; the profile asks for {asked.memory} on each node"
            yield profile.problem(message, "memory", estimate.stage, "ask for more")
