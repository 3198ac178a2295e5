"""What a recipe means for a number of processes. No torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.preflight.machine import this_machine
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.profile_settings import Profile, Resources
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.recipe.stage_table import STAGES
from pae_framework.training.train_settings import TrainSettings


def processes_of(profile: Profile, asked: Resources) -> int:
    """Processes of a job; with the executor local, one per visible GPU unless stated."""
    if profile.executor == "local" and not (asked.tasks_per_node or asked.gpus):
        return len(this_machine().gpus) or 1
    return asked.processes


@dataclass(frozen=True)
class Sharing:
    """How processes share the micro-batches of the unfinished trainings of some recipes.

    Args:
        recipes: the recipes to run.
        store: folder of their stages; None: none is done.
        processes: the number of processes, or the profile that says it for each stage.
        again: stages that run anew, with all that depend on them.
    """

    recipes: Sequence[LoadedRecipe]
    store: Path | None
    processes: int | FoundProfile
    again: Collection[str] = ()

    def impossible(self) -> list[Problem]:
        """Trainings with fewer images per micro-batch than processes, each of which needs one."""
        return [
            batch.problem("cannot share", batch.remedy)
            for batch in self._batches()
            if batch.images < batch.processes
        ]

    def uneven(self) -> list[Problem]:
        """Trainings whose processes have unlike numbers of images, so that some wait for others."""
        return [
            batch.problem("share unevenly", f"{batch.even} processes share them evenly")
            for batch in self._batches()
            if batch.images > batch.processes and batch.images % batch.processes
        ]

    def _batches(self) -> list[_Batch]:
        found: dict[str, _Batch] = {}
        for loaded in self.recipes:
            for name in unfinished_stages(loaded, self.store, self.again):
                if (train := STAGES[name].train(loaded.recipe)) is not None:
                    found.setdefault(name, _Batch(loaded, name, train, self.processes))
        return [found[name] for name in STAGES if name in found]


@dataclass(frozen=True)
class _Batch:
    """The micro-batches of a training."""

    loaded: LoadedRecipe
    stage: str
    train: TrainSettings
    told: int | FoundProfile

    @property
    def images(self) -> int:
        return self.train.batch_size // self.train.accumulate

    @property
    def processes(self) -> int:
        if isinstance(self.told, int):
            return self.told
        return processes_of(self.told.profile, self.told.profile.for_stage(self.stage))

    @property
    def even(self) -> int:
        """The largest number of processes, up to that asked for, that share the images evenly."""
        return max(n for n in range(1, self.processes + 1) if self.images % n == 0)

    @property
    def key(self) -> KeyPath:
        return (*(STAGES[self.stage].train_path or ()), "batch_size")

    @property
    def remedy(self) -> str:
        enough = self.processes * self.train.accumulate
        return f"use at most {self.images} processes, or set {dotted(self.key)}={enough} or more"

    def problem(self, how: str, hint: str) -> Problem:
        """A problem at the number of processes in the profile, else at the batch size."""
        message = (
            f"{self.processes} processes {how} micro-batches of {self.images} images (batch_size "
            f"{self.train.batch_size}, accumulate {self.train.accumulate})"
        )
        if isinstance(self.told, int):
            return Problem(message, dotted(self.key), self.loaded.root.position(self.key), hint)
        asked = self.told.profile.for_stage(self.stage)
        per_node = "tasks_per_node" if asked.tasks_per_node else "gpus_per_node"
        place = "nodes" if asked.nodes > 1 else per_node
        return self.told.problem(f"{self.stage}: {message}", place, self.stage, hint)


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
