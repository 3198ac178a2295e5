"""Describe a run in its directory before its stages run or are submitted. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.data_record import (
    SPLITS,
    changed_images,
    found_contents,
    remember,
    source_of,
)
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.earlier import adopt_hashed
from pae_framework.runs.plan import PlannedStage, Split, upstream_stages
from pae_framework.runs.planned import IDENTIFIED, planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import clear_unfinished


@dataclass(frozen=True)
class DescribedRun:
    """The stages of a run that its directory describes now.

    Args:
        stages: the plan, in the order the stages run.
        chosen: names of those to run.
        unfinished: names of those of them that are not done.
    """

    stages: Mapping[str, PlannedStage]
    chosen: list[str]
    unfinished: list[str]


def describe_run(
    loaded: LoadedRecipe,
    directory: RunDirectory,
    command: str,
    console: PlainConsole,
    until: str | None = None,
) -> DescribedRun:
    """Describe a run in its directory, and say what changed. Hold the run's lock.

    Args:
        loaded: the recipe, without a sweep.
        directory: the run's directory.
        command: what the user typed, for the record.
        console: shows what changed.
        until: choose only this stage and the stages it depends on; None: all.
    """
    found = found_contents(loaded.recipe)
    stages = planned_stages(loaded, directory.store, found)
    chosen = list(stages) if until is None else upstream_stages(stages, until)
    unfinished = [name for name in chosen if not directory.stage(stages[name]).done]
    adopt_hashed(directory, loaded.registry, found)
    for line in changed_images(directory, found, _splits(unfinished, loaded.recipe)):
        console.print(line)
    clear_unfinished(directory.path, recursive=False)
    directory.write(loaded, list(stages.values()), command, bool(unfinished))
    remember(loaded.recipe, directory.store, found)
    _tell_new_rules(loaded.recipe, directory, stages, console)
    return DescribedRun(stages, chosen, unfinished)


def is_first_visit(record: StageRecord, planned: PlannedStage) -> bool:
    """Whether an earlier version began the stage, and it has not been identified by its images."""
    return planned.identified is not None and IDENTIFIED not in record.info


def _tell_new_rules(
    recipe: Recipe,
    directory: RunDirectory,
    stages: Mapping[str, PlannedStage],
    console: PlainConsole,
) -> None:
    """Say at the first visit if an earlier version read other files."""
    if not any(is_first_visit(directory.stage(stage), stage) for stage in stages.values()):
        return
    for split in SPLITS:
        if difference := source_of(recipe, split).config.read_before():
            console.print(f"data.{split}: {difference}")


def _splits(stages: Iterable[str], recipe: Recipe) -> set[Split]:
    """Splits of the images that one of the stages reads."""
    return {x for x in SPLITS if any(STAGES[name].needs(("data", x), recipe) for name in stages)}
