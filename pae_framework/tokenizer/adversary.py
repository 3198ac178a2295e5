"""The adversarial term: a discriminator learns to tell images from reconstructions, and the
tokenizer to deceive it.

Hinge loss (Lim and Ye 2017, arXiv 1705.02894) with the schedule of RAE (arXiv 2510.11690, stage 1)
and the adaptive weight of VQGAN (arXiv 2012.09841).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pae_framework.contracts import Batch, Discriminator, LossTerms
from pae_framework.errors import UsageError
from pae_framework.plugins import Registry
from pae_framework.recipe.models import AdversarialSection
from pae_framework.tokenizer.model import Tokenizer

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """When the discriminator learns, and how much of the term the tokenizer feels; in steps."""

    update_from: int
    start: int
    warmup: int

    @classmethod
    def of(cls, section: AdversarialSection, steps_per_epoch: float, total: int) -> Schedule:
        """A recipe's, of ``total`` optimiser steps, ``steps_per_epoch`` of them an epoch.

        Raises:
            UsageError: the term would count before its discriminator begins to learn, or never.
        """
        points = (section.update_from, section.start, section.warmup)
        schedule = cls(*(point.in_steps(steps_per_epoch) for point in points))
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


@dataclass(frozen=True)
class Adversary:
    """The opponent as the tokenizer's objective knows it: beside it, no part of it.

    ``weight`` is the term's factor; ``adaptive`` says whether it is also multiplied by the ratio of
    gradients.
    """

    discriminator: Discriminator
    schedule: Schedule
    weight: float
    adaptive: bool

    def term(self, reconstruction: Tensor, generator: torch.Generator) -> Tensor:
        """``-mean(logits)`` of reconstructions (B, 3, S, S): low where they are taken for real.

        The discriminator only judges: no statistics or power iterations of its move, and its
        weights get no gradients.
        """
        with judging(self.discriminator) as discriminator:
            augmented = discriminator.augment(reconstruction, generator)
            return -discriminator(augmented).float().mean()


class DiscriminatorObjective(nn.Module):
    """What the discriminator is trained by; the tokenizer is beside it, no part of it.

    Args:
        discriminator: is trained.
        tokenizer: makes the reconstructions, with the weights it has at that moment.
    """

    tokenizer: Tokenizer

    def __init__(self, discriminator: Discriminator, tokenizer: Tokenizer):
        super().__init__()
        self.discriminator = discriminator
        object.__setattr__(self, "tokenizer", tokenizer)  # outside the module tree

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """The hinge loss ``discriminator`` (also as ``loss``) and the mean logits of both sides.

        Reconstructions are made anew in eval mode, so without noise, and are rounded to the levels
        of 8-bit images, which the real ones have: else rounding would give the false ones away.
        """
        images = batch[0]
        with torch.no_grad(), evaluating(self.tokenizer):
            latents = self.tokenizer.encode(images).latents
            false = to_levels(self.tokenizer.decode(latents))
        real, false = (
            self.discriminator(self.discriminator.augment(x, generator)).float()
            for x in (images, false)
        )
        loss = hinge(real, false)
        return {
            "discriminator": loss,
            "logits_real": real.detach().mean(),
            "logits_fake": false.detach().mean(),
            "loss": loss,
        }


def hinge(real: Tensor, false: Tensor) -> Tensor:
    """``(mean relu(1 - real) + mean relu(1 + false)) / 2`` of logits of any shape."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + false).mean())


def to_levels(images: Tensor) -> Tensor:
    """Images in [0, 1], each value at the nearest of the 256 levels k / 255."""
    return (images.clamp(0.0, 1.0) * 255).round() / 255


def build_discriminator(
    section: AdversarialSection, image_size: int, registry: Registry
) -> Discriminator:
    """The recipe's discriminator, untrained, with the weights of its frozen part.

    Initial weights are drawn from torch's default generator.

    Raises:
        UsageError: it cannot take images of this size.
        DataError: weights are not here and cannot be downloaded.
        CheckpointError: they belong to another network.
        PluginError: the component does not import.
    """
    component = section.discriminator
    try:
        component.config.check_image_size(image_size)
    except ValueError as error:
        raise UsageError(f"tokenizer.adversarial.discriminator: {error}") from error
    cls = registry.find(component.kind, component.use).component_class()
    discriminator = cls(component.config, image_size)
    assert isinstance(discriminator, Discriminator)
    discriminator.load_pretrained()
    return discriminator


@contextmanager
def evaluating(module: Module) -> Iterator[Module]:
    """Within, the module is in eval mode; after, each of its parts as before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def judging(discriminator: Discriminator) -> Iterator[Discriminator]:
    """Within, the discriminator is in eval mode, but for batch norm where it takes the batch's
    statistics, and what is computed gives its weights no gradients."""
    learning = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    norms = [part for part in discriminator.modules() if isinstance(part, _BatchNorm)]
    norms = [norm for norm in norms if discriminator.batch_statistics and norm.track_running_stats]
    with evaluating(discriminator):
        for norm in norms:
            norm.training, norm.track_running_stats = True, False  # of the batch, running ones rest
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield discriminator
        finally:
            for norm in norms:
                norm.track_running_stats = True
            for parameter in learning:
                parameter.requires_grad_(True)
