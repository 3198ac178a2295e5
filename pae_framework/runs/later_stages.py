"""How long a run takes after one of its stages, by what stages took before. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import trainings
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.planned import known_info


@dataclass(frozen=True)
class LaterStages:
    """What a run still has to do after a stage.

    A stage like one that is done in the same store takes as long as that one, in proportion to its
    steps. Any other training takes as long per image as the finished trainings of the run, or as
    the present stage. Other stages are not counted.

    Args:
        measured: seconds of the stages of the first kind.
        images: of the other trainings.
        images_per_s: of the finished trainings of the run; None if there is none.
        batch_size: of the present stage; None if it does not train.
    """

    measured: float
    images: int
    images_per_s: float | None
    batch_size: int | None

    def seconds(self, speed: float) -> float | None:
        """The time that they take; None if nothing is known of it.

        Args:
            speed: of the present stage, in steps/s (or images/s if it does not train).
        """
        images_per_s = self.images_per_s or (self.batch_size and speed * self.batch_size)
        if self.images and not images_per_s:
            return None
        unmeasured = self.images / images_per_s if images_per_s else 0.0
        return self.measured + unmeasured or None


def later_stages(
    recipe: Recipe,
    run: RunDirectory,
    plan: Mapping[str, PlannedStage],
    stage: str,
    train_images: int | None,
) -> LaterStages:
    """The unfinished stages that a plan has after a stage.

    Args:
        recipe: of the run.
        run: its directory.
        plan: its stages by name.
        stage: the present one.
        train_images: number of training images; None: unknown, so lengths in epochs are too.
    """
    settings = trainings(recipe)
    steps = {
        name: train.steps if train_images is None else train.total_steps(train_images)
        for name, train in settings.items()
    }
    present = list(plan).index(stage)
    measured, images, done_images, done_seconds = 0.0, 0, 0, 0.0
    for position, (name, planned) in enumerate(plan.items()):
        info, own = known_info(run.store / planned.folder), steps.get(name)
        own_images = own * settings[name].batch_size if own else 0
        if info.get("state") == "done":
            if own_images:
                done_images, done_seconds = done_images + own_images, done_seconds + _seconds(info)
        elif position > present:
            if (like := _newest(run.store, name)) is None:
                images += own_images
            else:
                measured += _seconds_like(like, own)
    train = settings.get(stage)
    return LaterStages(
        measured,
        images,
        images_per_s=done_images / done_seconds if done_seconds else None,
        batch_size=None if train is None else train.batch_size,
    )


def seconds_of_runs(
    runs: Iterable[tuple[Recipe, Mapping[str, PlannedStage]]], store: Path
) -> float | None:
    """About how long the unfinished stages of runs take, each shared stage counted once.

    A stage takes as long as the one of its name that was started last of those that are done, in
    proportion to its steps. A stage that does not train and is like none is not counted.

    Args:
        runs: the recipe and the plan of each.
        store: folder of their stages.

    Returns:
        None if a training is like none that is done, or if nothing is counted.
    """
    counted: set[str] = set()
    total = 0.0
    for recipe, plan in runs:
        settings = trainings(recipe)
        for name, planned in plan.items():
            if planned.folder in counted:
                continue
            counted.add(planned.folder)
            if known_info(store / planned.folder).get("state") == "done":
                continue
            if (like := _newest(store, name)) is not None:
                total += _seconds_like(like, settings[name].steps if name in settings else None)
            elif name in settings:
                return None
    return total or None


def _seconds_like(info: Mapping[str, Any], steps: int | None) -> float:
    """How long a stage takes that is like a finished one, in proportion to its steps."""
    total = (info.get("progress") or {}).get("total")
    return _seconds(info) * (steps / total if steps and total else 1)


def _newest(store: Path, stage: str) -> dict[str, Any] | None:
    """The record of the stage of this name that was started last, of those that are done."""
    records = (known_info(file.parent) for file in store.glob(f"{stage}-*/stage.json"))
    done = [info for info in records if info.get("state") == "done" and _seconds(info)]
    return max(done, key=lambda info: str(info.get("started", "")), default=None)


def _seconds(info: Mapping[str, Any]) -> float:
    return float(info.get("seconds") or 0.0)
