"""What a recipe means for a number of processes. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES


def unshared_batches(
    recipes: Sequence[LoadedRecipe], store: Path, processes: int, again: Collection[str] = ()
) -> list[Problem]:
    """Trainings with fewer images per micro-batch than processes, each of which needs one."""
    problems: dict[str, Problem] = {}
    for loaded in recipes if processes > 1 else ():
        for problem in _unshared(loaded, store, processes, again):
            problems.setdefault(problem.path, problem)
    return list(problems.values())


def settings_without_effect(recipes: Sequence[LoadedRecipe]) -> list[Problem]:
    """Settings by which earlier versions started processes; worth a warning."""
    problems: dict[str, Problem] = {}
    for loaded in recipes:
        for section in ("latents", "sample"):
            path = (section, "processes")
            count = getattr(getattr(loaded.recipe, section), "processes", 1)
            if count > 1:
                message = "is deprecated and has no effect"
                hint = f"use `pae run --processes {count}`"
                where = loaded.root.position(path)
                problems.setdefault(section, Problem(message, dotted(path), where, hint))
    return list(problems.values())


def _unshared(
    loaded: LoadedRecipe, store: Path, processes: int, again: Collection[str]
) -> Iterator[Problem]:
    for name in unfinished_stages(loaded, store, again):
        stage = STAGES[name]
        train = stage.train(loaded.recipe)
        if train is None or (images := train.batch_size // train.accumulate) >= processes:
            continue
        key = dotted((*(stage.train_path or ()), "batch_size"))
        yield Problem(
            f"{processes} processes cannot share micro-batches of {images} images (batch_size "
            f"{train.batch_size}, accumulate {train.accumulate})",
            key,
            hint=f"start at most {images} processes, or set {key} to "
            f"{processes * train.accumulate} or more",
        )
