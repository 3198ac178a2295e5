"""One network learning: gradients of a batch in parts, clipping, the optimiser's step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pae_framework.contracts import Batch, LossTerms
from pae_framework.training.optimizer import learning_rate, set_learning_rate
from pae_framework.training.train_settings import OptimizerSettings


@dataclass(frozen=True)
class Learner:
    """A network with its optimiser and its schedule.

    Args:
        module: ``module(batch, generator)`` gives the terms of a micro-batch.
        optimizer: over its trainable weights.
        settings: clipping and schedule.
        total: steps of the training.
        first_step: steps before it do not train it; the schedule begins there.
        bf16: whether losses are computed under autocast; weights keep their type.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    settings: OptimizerSettings
    total: int
    first_step: int = 0
    bf16: bool = False

    def learning_rate(self, step: int) -> float:
        """Its learning rate at ``step`` of the training (the first is 0), before parts' factors."""
        return learning_rate(step - self.first_step, self.total - self.first_step, self.settings)

    def learn(
        self,
        micro_batches: Sequence[Batch],
        step: int,
        randomness: Callable[[int], torch.Generator],
    ) -> LossTerms:
        """Take one optimiser step on a batch that is given in parts.

        Each part's loss counts by its share of the images, so that for losses that are means over
        images the gradient is the whole batch's, however the parts are cut. It is not for losses
        that look at a batch as a whole: adaptive weights are measured, and batch norm's statistics
        taken, for each micro-batch by itself. Random draws are made for each micro-batch anew: with
        another ``accumulate`` a loss that draws sees other numbers.

        Args:
            micro_batches: parts of the batch, on the device.
            step: of the training; the first is 0.
            randomness: the generator of a part, by its index.

        Returns:
            The batch's mean terms and ``grad_norm``, the gradient's norm before clipping, on the
            device.
        """
        set_learning_rate(self.optimizer, self.learning_rate(step))
        self.optimizer.zero_grad(set_to_none=True)  # what another's backward pass may have left
        terms = self._accumulate(micro_batches, randomness)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        # Measured without clipping, too: a gradient that is not finite must be seen.
        norm = nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
        if self.settings.clip is not None:
            nn.utils.clip_grads_with_norm_(weights, self.settings.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return terms | {"grad_norm": norm.detach()}

    def _accumulate(
        self, micro_batches: Sequence[Batch], randomness: Callable[[int], torch.Generator]
    ) -> LossTerms:
        images = sum(len(part[0]) for part in micro_batches)
        totals: LossTerms = {}
        for index, part in enumerate(micro_batches):
            share = len(part[0]) / images
            with torch.autocast(part[0].device.type, torch.bfloat16, enabled=self.bf16):
                terms = self.module(part, randomness(index))
            (terms["loss"] * share).backward()
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.detach() * share
        return totals
