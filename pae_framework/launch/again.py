"""Stages that are to run anew although they are done: ``pae run --again``. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pae_framework.errors import RunError, UsageError
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.suggestions import suggestion
from pae_framework.runs.plan import downstream_stages
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord


def require_stages(names: Collection[str], recipes: Sequence[LoadedRecipe]) -> None:
    """Check the names given to ``--again``.

    Raises:
        UsageError: one is not a stage of any of the recipes.
    """
    known = [
        name
        for name, stage in STAGES.items()
        if any(stage.exists(recipe.recipe) for recipe in recipes)
    ]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--again: {recipes[0].recipe.name} has no stage {name!r}; "
                f"{suggestion(name, known)}"
            )


def outdate_stages(names: Collection[str], recipes: Sequence[LoadedRecipe], store: Path) -> None:
    """Mark stages of the recipes, and all that depend on them, as not begun.

    Also those that belong to other recipes of the store. The results are removed when a stage
    starts; see :meth:`StageRecord.prepare`.

    Raises:
        RunError: another process works on one of them, and none is marked; or a named stage is
            still done.
        DataError: a file of the images cannot be read.
    """
    records = downstream_records(names, recipes, store)
    outdated = [record for record in records if record.path.is_dir()]
    with ExitStack() as held:
        for record in outdated:
            held.enter_context(record.lock(waiting=None))
        for record in reversed(outdated):  # readers first: an interruption must not leave them done
            record.outdate()
    for recipe in recipes:
        _require_outdated(names, recipe, store)


def _require_outdated(names: Collection[str], recipe: LoadedRecipe, store: Path) -> None:
    stages = planned_stages(recipe, store)
    for name in names:
        if name in stages and (record := StageRecord(store / stages[name].folder)).done:
            raise RunError(f"--again {name}: {record.path} is still done; remove this folder")


def downstream_records(
    names: Collection[str], recipes: Sequence[LoadedRecipe], store: Path
) -> Iterator[StageRecord]:
    """The named stages and those that depend on them, each after the ones that it reads."""
    folders: dict[str, None] = {}
    for recipe in recipes:
        stages = planned_stages(recipe, store)
        chosen = [name for name in names if name in stages]
        folders |= dict.fromkeys(stages[x].folder for x in downstream_stages(stages, chosen))
    inputs = {file.parent.name: _inputs(file.parent) for file in store.glob("*/stage.json")}
    found = -1
    while len(folders) > found:
        found = len(folders)
        folders |= {name: None for name, reads in inputs.items() if not reads.isdisjoint(folders)}
    return (StageRecord(store / folder) for folder in folders)


def _inputs(folder: Path) -> set[str]:
    """Names of the folders that a stage read; empty if its record is damaged."""
    try:
        inputs = StageRecord(folder).info.get("inputs", {})
    except RunError:
        return set()
    return {f"{stage}-{fingerprint}" for stage, fingerprint in inputs.items()}
