"""Trainings that go on from a shorter one: which stage and which of its steps. No torch.

A training of more steps begins with the steps of a shorter one if the two differ in nothing else
and no learning rate depends on the length. It can then start from a checkpoint of the shorter one
and ends with the same bits as from its first step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.errors import Problem
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.changes import Difference, difference, shortened
from pae_framework.runs.data_record import read_record
from pae_framework.runs.earlier import earlier_stages
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import StageRecord
from pae_framework.training.train_settings import OptimizerSettings, TrainSettings

CONTINUED = "continued_from"
"""Key of ``stage.json``: the folder and the step that a training went on from."""
_CHECKPOINT = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Origin:
    """A shorter training to go on from."""

    record: StageRecord
    steps: tuple[int, ...]
    """Steps of its checkpoints that can be used, the last first."""

    def __str__(self) -> str:
        return f"step {self.steps[0]} of {self.record.path.name}"


@dataclass(frozen=True)
class Refusal:
    """Why a training cannot go on from another."""

    record: StageRecord
    reason: str

    def __str__(self) -> str:
        return f"{self.record.path.name}: {self.reason}"


def find_origin(planned: PlannedStage, recipe: Recipe, store: Path) -> Origin | Refusal | None:
    """The training that a stage can go on from, or why there is none.

    It is the one named in ``continue_from``, which may also differ in more; else the one in the
    store with the latest step.

    Args:
        planned: the stage, which has no checkpoint of its own.
        recipe: its recipe.
        store: folder of the stages.

    Returns:
        None if the stage does not train, or if no other stage differs only in its length.

    Raises:
        RunError: the record of the training named in ``continue_from`` is damaged.
    """
    train = STAGES[planned.name].train(recipe)
    if train is None or not planned.hashed:
        return None
    longer = _Longer(planned, recipe, train)
    if train.continue_from is not None:
        return longer.origin_named(train.continue_from)
    found = [longer.origin_in(record) for record in earlier_stages(planned, store)]
    return _best_of(found)


def _best_of(found: Sequence[Origin | Refusal | None]) -> Origin | Refusal | None:
    """The origin with the latest step, else the first refusal."""
    origins = [one for one in found if isinstance(one, Origin)]
    refusals = [one for one in found if isinstance(one, Refusal)]
    return max(origins, key=lambda one: one.steps[0], default=next(iter(refusals), None))


def continue_from_problem(stage: str, refusal: Refusal) -> Problem:
    """The problem that the training named in ``continue_from`` of a stage cannot be used."""
    path = (*(STAGES[stage].train_path or ()), "continue_from")
    return Problem(str(refusal), dotted(path), hint="remove it to start from the first step")


@dataclass(frozen=True)
class _Longer:
    """A training that may go on from another."""

    planned: PlannedStage
    recipe: Recipe
    train: TrainSettings

    @property
    def path(self) -> KeyPath:
        path = STAGES[self.planned.name].train_path
        assert path is not None
        return path

    def origin_named(self, name: str) -> Origin | Refusal:
        """The origin in a run or in the folder of a stage."""
        path = Path(name).expanduser()
        if (path / "stage.json").is_file():
            records = [StageRecord(path)]
        else:
            linked = StageRecord((path / self.planned.name).resolve())
            others = earlier_stages(self.planned, path / "stages")
            own = self.planned.folder
            records = [x for x in (linked, *others) if x.info and x.path.name != own]
        if not records:
            reason = f"{path} holds no other stage {self.planned.name} that was begun"
            return Refusal(StageRecord(path), reason)
        found = [self.origin_in(record) for record in records]
        unlike = Refusal(records[0], self._describe_difference(records[0]))
        return _best_of(found) or unlike

    def _describe_difference(self, record: StageRecord) -> str:
        hashed = record.info.get("hashed")
        if not hashed:
            return "it is of an earlier version, which did not record its settings"
        if hashed.get("stage") != self.planned.name:
            return f"it is no stage {self.planned.name}"
        found = self._difference(hashed)
        facts = [str(change) for change in found.changes if change.key not in self._length_keys]
        facts += [f"another {name}" for name in found.inputs]
        return f"it differs not only in its length: {shortened(facts)}"

    def origin_in(self, record: StageRecord) -> Origin | Refusal | None:
        """How to go on from another stage; None if it differs in more than the length."""
        if not (hashed := record.info.get("hashed")) or hashed.get("stage") != self.planned.name:
            return None
        found = self._difference(hashed)
        if not found.is_only_in(*self._length_keys):
            return None
        if record.state == "running":
            return Refusal(record, "another process is working on it")
        steps = self._steps(record, found)
        if isinstance(steps, str):
            return Refusal(record, steps)
        return Origin(record, tuple(steps))

    def _difference(self, hashed: dict[str, Any]) -> Difference:
        return difference(self.planned.name, hashed, self.planned.hashed, self.recipe)

    @property
    def _length_keys(self) -> tuple[KeyPath, ...]:
        return tuple((*self.path, key) for key in ("steps", "epochs", "keep_steps"))

    def _steps(self, record: StageRecord, found: Difference) -> list[int] | str:
        """Steps of the checkpoints that can be used, the last first; or why there are none."""
        total = self._total(record)
        if total is None:
            return "the number of its images is unknown, so epochs cannot be compared with steps"
        present = _checkpoint_steps(record.path)
        earlier = [step for step in present if step < total]
        if not earlier:
            return f"it has no checkpoint{f' before step {total}' if present else ''}"
        usable = [step for step in earlier if self._dependent_schedule(step) is None]
        if not usable:
            step, whole = earlier[0], record.total
            return (
                f"{self._dependent_schedule(step)}: step {step} of {whole} is not step {step} of "
                f"{total}; only a constant schedule, or one with `decay_to`, can go on"
            )
        kept = [step for step in usable if self._keeps_the_same(step, found)]
        return kept or f"it kept other steps than {dotted((*self.path, 'keep_steps'))}"

    def _total(self, record: StageRecord) -> int | None:
        """Steps of the whole training; None if they depend on an unknown number of images."""
        if self.train.steps is not None:
            return self.train.steps
        if self.planned.name == "generator" and self.recipe.latents.folder is not None:
            return None
        recorded = read_record([record.path], "train")
        images = None if recorded is None else recorded.images
        images = images or self.recipe.data.train.config.image_count()
        return None if images is None else self.train.total_steps(images)

    def _dependent_schedule(self, step: int) -> str | None:
        """Describes a schedule whose first ``step`` steps depend on the length; or None."""
        for path, optimizer, first in _optimizers(self.planned.name, self.recipe):
            if optimizer.rates_depend_on_length(step - first):
                return f"{dotted((*path, 'schedule'))} is {optimizer.schedule}"
        return None

    def _keeps_the_same(self, step: int, found: Difference) -> bool:
        """Whether both keep the same weights up to ``step``; each has a line in the log."""
        change = found.at((*self.path, "keep_steps"))
        if change is None:
            return True
        old, new = ({kept for kept in x if kept <= step} for x in (change.old, change.new))
        return old == new


def _optimizers(stage: str, recipe: Recipe) -> Iterator[tuple[KeyPath, OptimizerSettings, int]]:
    """Key path and settings of each optimizer of a training, and the least step it starts at."""
    row = STAGES[stage]
    if row.train_path is not None and (train := row.train(recipe)) is not None:
        yield row.train_path, train, 0
    section = None if recipe.composed is None else recipe.composed.active_adversarial
    if stage == "tokenizer" and section is not None:
        path = ("tokenizer", "adversarial", "optimizer")
        yield path, section.optimizer, section.update_from.steps or 0


def _checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in the folder of a stage, the last first."""
    names = (_CHECKPOINT.fullmatch(path.name) for path in folder.glob("checkpoints/step-*"))
    return sorted((int(name[1]) for name in names if name), reverse=True)
