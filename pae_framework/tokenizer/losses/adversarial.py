"""The adversarial term: a discriminator learns to tell images from reconstructions, and the
tokenizer to deceive it.

Hinge loss (Lim and Ye 2017, arXiv 1705.02894) with the schedule of RAE (arXiv 2510.11690, stage 1)
and the adaptive weight of VQGAN (arXiv 2012.09841). :class:`AdversarialTerm` is what the tokenizer
is trained by, :class:`DiscriminatorLoss` what the discriminator is trained by.

Legend: B batch, S image side in px, M logits per image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pae_framework.contracts import Batch, Discriminator, LossTerms, RegularizerInputs
from pae_framework.errors import UsageError
from pae_framework.tokenizer.losses.adaptive_weight import ADVERSARIAL as BOUNDS
from pae_framework.tokenizer.losses.terms import LossTerm
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.tokenizer.tokenizer_settings import ADVERSARIAL, DISCRIMINATOR_TERMS
from pae_framework.training.train_settings import Length

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """When the discriminator is trained and when the term counts, in optimiser steps.

    The discriminator learns from step ``update_from`` on. The term's weight grows linearly from 0
    at step ``start`` to its full value ``warmup`` steps later.
    """

    update_from: int
    start: int
    warmup: int

    @classmethod
    def in_steps(
        cls, update_from: Length, start: Length, warmup: Length, *, per_epoch: float, total: int
    ) -> Self:
        """The schedule of a training of ``total`` optimiser steps, ``per_epoch`` of them an epoch.

        Raises:
            UsageError: the term would count before the discriminator learns, or never. A recipe
                cannot tell where it gives one point in steps and the other in epochs.
        """
        points = (point.in_steps(per_epoch) for point in (update_from, start, warmup))
        schedule = cls(*points)
        where = f"tokenizer.adversarial.start: the term would count from step {schedule.start} on"
        if schedule.start < schedule.update_from:
            raise UsageError(
                f"{where}, before its discriminator begins to learn (`update_from`, step "
                f"{schedule.update_from}); start at `update_from` or later"
            )
        if schedule.start >= total:
            raise UsageError(
                f"{where} (the first is 0), but the training has {total}; start earlier, train "
                "longer, or remove `adversarial`"
            )
        return schedule

    def share(self, step: int) -> float:
        """From 0 at ``start`` linearly to 1 after ``warmup`` steps; 1 at once without a warm-up."""
        if step < self.start:
            return 0.0
        return min(1.0, (step - self.start) / self.warmup) if self.warmup else 1.0


class AdversarialTerm(LossTerm):
    """What the tokenizer is trained by: low where reconstructions are taken for real images.

    Args:
        discriminator: stays outside the module tree of the objective.
        schedule: when the term counts.
        weight: factor of the term.
        adaptive: whether it is also multiplied by the ratio of gradient norms.
    """

    bounds = BOUNDS
    layer_name = "decoder's last layer"

    def __init__(
        self, discriminator: Discriminator, schedule: Schedule, weight: float, adaptive: bool
    ):
        super().__init__(ADVERSARIAL, weight, adaptive, ("discriminator",))
        self.discriminator, self.schedule = discriminator, schedule

    def share(self, step: int) -> float:
        """As scheduled."""
        return self.schedule.share(step)

    def layer(self, tokenizer: Tokenizer) -> nn.Parameter:
        """The decoder's last weight."""
        return tokenizer.decoder.last_layer()

    def __call__(self, inputs: RegularizerInputs) -> Tensor:
        """``-mean(logits)`` of the reconstructions."""
        return self.of(inputs.reconstruction, inputs.generator)

    def of(self, reconstruction: Tensor, generator: torch.Generator) -> Tensor:
        """``-mean(logits)`` of reconstructions (B, 3, S, S).

        The discriminator does not change: its statistics and power iterations stay, and its
        weights get no gradients.
        """
        with without_updates(self.discriminator) as discriminator:
            augmented = discriminator.augment(reconstruction, generator)
            return -discriminator(augmented).float().mean()  # of logits (B, M)


class DiscriminatorLoss(nn.Module):
    """What the discriminator is trained by.

    Args:
        discriminator: is trained.
        tokenizer: makes the reconstructions with its current weights; outside the module tree.
    """

    tokenizer: Tokenizer

    def __init__(self, discriminator: Discriminator, tokenizer: Tokenizer):
        super().__init__()
        self.discriminator = discriminator
        object.__setattr__(self, "tokenizer", tokenizer)  # outside the module tree

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """The hinge loss ``discriminator`` (also as ``loss``) and the mean logits of both sides.

        Reconstructions are computed again, in eval mode, so without noise. They are rounded to 8
        bits like the images: otherwise the discriminator could tell them by that.
        """
        images = batch[0]  # (B, 3, S, S)
        with torch.no_grad(), eval_mode(self.tokenizer):
            latents = self.tokenizer.encode(images).latents
            false = to_levels(self.tokenizer.decode(latents))
        real, false = (  # logits (B, M)
            self.discriminator(self.discriminator.augment(x, generator)).float()
            for x in (images, false)
        )
        loss = hinge(real, false)
        terms = (loss, real.detach().mean(), false.detach().mean())
        return dict(zip(DISCRIMINATOR_TERMS, terms, strict=True)) | {"loss": loss}


def hinge(real: Tensor, false: Tensor) -> Tensor:
    """``(mean relu(1 - real) + mean relu(1 + false)) / 2`` of logits of any shape."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + false).mean())


def to_levels(images: Tensor) -> Tensor:
    """Images in [0, 1] with each value rounded to one of the 256 levels k / 255."""
    return (images.clamp(0.0, 1.0) * 255).round() / 255


@contextmanager
def eval_mode(module: Module) -> Iterator[Module]:
    """Put the module in eval mode; afterwards restore the mode of each of its sub-modules."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def without_updates(discriminator: Discriminator) -> Iterator[Discriminator]:
    """Put the discriminator in eval mode and give its weights no gradients.

    If it asks for ``batch_statistics``, batch norm normalises by the batch but does not update its
    running averages.
    """
    learning = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    norms = [part for part in discriminator.modules() if isinstance(part, _BatchNorm)]
    norms = [norm for norm in norms if discriminator.batch_statistics and norm.track_running_stats]
    with eval_mode(discriminator):
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield discriminator
        finally:
            for norm in norms:
                norm.track_running_stats = True
            for parameter in learning:
                parameter.requires_grad_(True)
