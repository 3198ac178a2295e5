"""Whether a recipe can run here, given the stages that are done already. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.preflight.machine import Machine
from pae_framework.preflight.requirements import missing_here, tight_here
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.runs.autoguidance_run import guiding_fault
from pae_framework.runs.plan import plan
from pae_framework.runs.record import StageRecord

_GUIDE: KeyPath = ("sample", "guidance", "autoguidance")


def stages_left(loaded: LoadedRecipe, store: Path | None) -> frozenset[str]:
    """Names of a recipe's stages that are not done in a store; without one, all."""
    planned = plan(loaded.recipe, loaded.registry)
    return frozenset(
        stage.name
        for stage in planned
        if store is None or not StageRecord(store / stage.folder).done
    )


def lacking(
    members: Sequence[LoadedRecipe], store: Path | None = None, machine: Machine | None = None
) -> list[Problem]:
    """What keeps recipes from running here: what they miss, or a run that cannot guide.

    Args:
        members: the recipes that are to run.
        store: where their stages are kept: those done there need nothing any more.
        machine: the machine; by default this one.
    """
    left = partial(stages_left, store=store)
    found = [*missing_here(members, machine, left), *_guides(members, store)]
    return list(dict.fromkeys(found))


def tight(members: Sequence[LoadedRecipe], store: Path | None = None) -> list[Problem]:
    """Stages still to be done for which memory may not suffice."""
    return tight_here(members, left=partial(stages_left, store=store))


def _guides(members: Sequence[LoadedRecipe], store: Path | None) -> Iterator[Problem]:
    for loaded in members:
        fault = guiding_fault(loaded.recipe, loaded.registry)
        if fault is not None and "sample" in stages_left(loaded, store):
            yield Problem(fault, dotted(_GUIDE), loaded.root.place(_GUIDE))
