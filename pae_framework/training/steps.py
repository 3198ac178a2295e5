"""The steps of a training: the task's, then its opponent's."""

from __future__ import annotations

from torch import nn

from pae_framework.contracts import Batch, LossTerms
from pae_framework.seeding import generator
from pae_framework.training.blocks import compile_blocks, recompute_blocks
from pae_framework.training.checkpoint import Part, TrainingState
from pae_framework.training.ema import EMA
from pae_framework.training.learner import Learner
from pae_framework.training.lr_factors import freeze_parts
from pae_framework.training.optimizer import build_optimizer
from pae_framework.training.task import TrainContext, TrainTask
from pae_framework.training.train_settings import TrainSettings

OPPONENT = "opponent_"
"""Before the names of the opponent's ``loss``, ``grad_norm`` and ``lr`` in the log."""


class Steps:
    """Prepares a task and its opponent, and takes their steps.

    ``state`` is what a checkpoint holds; ``kept`` is what is averaged and left behind, and ``ema``
    its average.
    """

    def __init__(self, task: TrainTask, settings: TrainSettings, total: int, place: TrainContext):
        self._trainee, self._settings, self._place = task, settings, place
        self._learner = _learner(task, settings, total, place)
        self._opponent = _opponent(task, settings, total, place)
        self.kept: nn.Module = task.module if task.kept is None else task.kept
        self.ema = EMA(self.kept, settings.ema) if settings.ema else None
        parts = {"model": Part(self._learner.module, self._learner.optimizer)}
        if self._opponent:
            parts["opponent"] = Part(self._opponent.module, self._opponent.optimizer)
        self.state = TrainingState(parts, self.ema)

    def take(self, step: int, batch: Batch) -> LossTerms:
        """Take step ``step`` (the first is 0); returns the batch's mean terms, on the device."""
        place = self._place
        if self._trainee.begin_step:
            self._trainee.begin_step(step)
        parts = zip(*(tensor.chunk(self._settings.accumulate) for tensor in batch), strict=True)
        micro_batches = [
            tuple(tensor.to(place.device, non_blocking=True) for tensor in part) for part in parts
        ]
        # Generators are on the CPU: the same numbers on every device.
        terms = self._learner.learn(
            micro_batches, step, lambda index: generator(place.seed, place.name, step, index)
        )
        if self.ema:
            self.ema.update()
        if self._opponent and step >= self._opponent.first_step:
            terms |= self._answer(self._opponent, micro_batches, step, terms)
        return terms

    def learning_rates(self, step: int) -> dict[str, float]:
        """The learning rates of step ``step``, by their names in the log."""
        rates = {"lr": self._learner.learning_rate(step)}
        if self._opponent and step >= self._opponent.first_step:
            rates[f"{OPPONENT}lr"] = self._opponent.learning_rate(step)
        return rates

    def _answer(
        self, opponent: Learner, micro_batches: list[Batch], step: int, taken: LossTerms
    ) -> LossTerms:
        """The opponent's step; its terms under names of their own."""
        place = self._place
        opponent.module.train()
        terms = opponent.learn(
            micro_batches,
            step,
            lambda index: generator(place.seed, place.name, "opponent", step, index),
        )
        opponent.module.eval()
        for name in ("loss", "grad_norm"):
            terms[f"{OPPONENT}{name}"] = terms.pop(name)
        assert not terms.keys() & taken.keys(), f"terms of both: {terms.keys() & taken.keys()}"
        return terms


def _learner(task: TrainTask, settings: TrainSettings, total: int, place: TrainContext) -> Learner:
    """The task, on the device, with its blocks as the settings want them."""
    module = task.module.train().to(place.device)
    freeze_parts(module, settings.lr_factors)
    if task.check:
        task.check()
    if settings.activation_checkpointing:
        recompute_blocks(module)
    if settings.compile:
        compile_blocks(module)
    optimizer = build_optimizer(module, settings, settings.lr_factors)
    return Learner(module, optimizer, settings, total, bf16=settings.precision == "bf16")


def _opponent(
    task: TrainTask, settings: TrainSettings, total: int, place: TrainContext
) -> Learner | None:
    """The task's opponent, on the device, if it has one."""
    if (opponent := task.opponent) is None:
        return None
    module = opponent.module.eval().to(place.device)
    return Learner(
        module,
        build_optimizer(module, opponent.settings),
        opponent.settings,
        total,
        opponent.first_step,
        bf16=settings.precision == "bf16",
    )
