"""Checks of the trainings that ``continue_from`` names. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import trainings
from pae_framework.runs.continuation import Refusal, continue_from_problem, find_origin
from pae_framework.runs.planned import planned_stages


def impossible_continuations(
    recipes: Sequence[LoadedRecipe], store: Path, again: Collection[str] = ()
) -> list[Problem]:
    """Stages that will run and cannot go on from the training that they name.

    Args:
        recipes: the recipes to run.
        store: folder of their stages. A stage that has a checkpoint there goes on from that.
        again: stages that run anew, with all that depend on them.

    Raises:
        RunError: the record of such a training is damaged.
    """
    found = (problem for loaded in recipes for problem in _impossible(loaded, store, again))
    return list(dict.fromkeys(found))


def _impossible(loaded: LoadedRecipe, store: Path, again: Collection[str]) -> Iterator[Problem]:
    naming = [name for name, x in trainings(loaded.recipe).items() if x.continue_from is not None]
    if not naming:
        return
    stages, unfinished = planned_stages(loaded, store), unfinished_stages(loaded, store, again)
    for name in naming:
        if name not in unfinished or any((store / stages[name].folder).glob("checkpoints/step-*")):
            continue
        origin = find_origin(stages[name], loaded.recipe, store)
        if isinstance(origin, Refusal):
            problem = continue_from_problem(name, origin)
            yield replace(problem, where=loaded.root.position(problem.path.split(".")))
