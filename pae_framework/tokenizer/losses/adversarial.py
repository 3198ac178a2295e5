"""The adversarial term: a discriminator learns to tell images from reconstructions, and the
tokenizer to deceive it.

Hinge loss (Lim and Ye 2017, arXiv 1705.02894) with the schedule of RAE (arXiv 2510.11690, stage 1)
and the adaptive weight of VQGAN (arXiv 2012.09841). :class:`AdversarialTerm` is part of the
tokenizer's loss; :class:`DiscriminatorLoss` trains the discriminator.

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

from pae_framework.config import Length
from pae_framework.contracts import (
    Batch,
    Discriminator,
    LossTerms,
    RegularizerInputs,
    cached_tokens,
)
from pae_framework.errors import UsageError
from pae_framework.tokenizer.losses.adaptive_weight import ADVERSARIAL_BOUNDS
from pae_framework.tokenizer.losses.terms import LossTerm, Ramp
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.step_tokens import StepTokens
from pae_framework.tokenizer.tokenizer_settings import ADVERSARIAL, DISCRIMINATOR_TERMS

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """When the discriminator and the tokenizer's adversarial term are active, in optimizer steps.

    The discriminator is trained from step ``update_from`` on. The term's weight grows linearly from
    0 at step ``start`` to its full value ``warmup`` steps later.
    """

    update_from: int
    start: int
    warmup: int

    @classmethod
    def in_steps(
        cls, update_from: Length, start: Length, warmup: Length, *, per_epoch: float, total: int
    ) -> Self:
        """The schedule in a training of ``total`` steps, ``per_epoch`` of them per epoch.

        Raises:
            UsageError: the term starts before the discriminator is trained, or never. The recipe
                check cannot tell if one value is in steps and the other in epochs.
        """
        schedule = cls(*(point.in_steps(per_epoch) for point in (update_from, start, warmup)))
        start_text = f"tokenizer.adversarial.start is step {schedule.start}"
        if schedule.start < schedule.update_from:
            raise UsageError(
                f"{start_text}, before update_from (step {schedule.update_from}): the loss would "
                f"use an untrained discriminator; set start={{steps: {schedule.update_from}}}"
            )
        if schedule.start >= total:
            raise UsageError(
                f"{start_text}, but the training ends after {total} steps; set an earlier start, a "
                "longer tokenizer.train, or tokenizer.adversarial=null"
            )
        return schedule

    def share(self, step: int) -> float:
        """Share of the weight: 0 until ``start``, then linearly to 1 within ``warmup`` steps."""
        return Ramp(self.start, self.warmup).at(step)


class AdversarialTerm(LossTerm):
    """The tokenizer's adversarial term: low if the discriminator takes reconstructions for images.

    Args:
        discriminator: stays outside the module tree of the objective.
        schedule: when the term is active.
        weight: factor of the term.
        adaptive: whether it is also multiplied by the ratio of gradient norms.
        tokens: keeps the frozen tokens of each step for :class:`DiscriminatorLoss`; None: they are
            computed again there.
    """

    bounds = ADVERSARIAL_BOUNDS
    layer_name = "decoder's last layer"
    of_reconstruction = True

    def __init__(
        self,
        discriminator: Discriminator,
        schedule: Schedule,
        weight: float,
        adaptive: bool,
        tokens: StepTokens | None = None,
    ):
        super().__init__(ADVERSARIAL, adaptive, ("discriminator",))
        self.discriminator, self.schedule, self._tokens = discriminator, schedule, tokens
        self.weight = weight

    def weight_at(self, step: int) -> float:
        """The weight, times the schedule's share."""
        return self.weight * self.schedule.share(step)

    def begin_step(self) -> None:
        """Forget the tokens of the step before."""
        if self._tokens is not None:
            self._tokens.clear()

    def share_tokens(self, step: int, images: Tensor, tokens: Tensor) -> None:
        """Keep the frozen tokens of these images if the discriminator is trained in this step."""
        if self._tokens is not None and step >= self.schedule.update_from:
            self._tokens.keep(images, tokens)

    def layer(self, tokenizer: ComposedTokenizer) -> nn.Parameter:
        """The decoder's last weight."""
        return tokenizer.decoder.last_layer()

    def __call__(self, inputs: RegularizerInputs) -> Tensor:
        """``-mean(logits)`` of the reconstructions.

        The discriminator does not change: its statistics and power iterations stay, and its
        weights get no gradients.
        """
        with without_updates(self.discriminator) as discriminator:
            augmented = discriminator.augment(inputs.reconstruction, inputs.generator)
            logits = discriminator(augmented)  # (B, M)
            return -logits.float().mean()


class DiscriminatorLoss(nn.Module):
    """The discriminator's loss.

    Args:
        discriminator: is trained.
        tokenizer: reconstructs with its current weights; stays outside the module tree.
        tokens: frozen tokens of the images that the tokenizer's step computed; None, and of other
            images: they are computed here.
    """

    tokenizer: ComposedTokenizer

    def __init__(
        self,
        discriminator: Discriminator,
        tokenizer: ComposedTokenizer,
        tokens: StepTokens | None = None,
    ):
        super().__init__()
        self.discriminator, self._tokens = discriminator, tokens
        object.__setattr__(self, "tokenizer", tokenizer)  # not a sub-module

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """The hinge loss, as ``discriminator`` and ``loss``, and the mean logits of both sides.

        Reconstructions are computed again with the new weights, in eval mode, so without noise.
        They are rounded to 8 bits like the images; otherwise the discriminator could distinguish
        them by that.
        """
        images = batch[0]  # (B, 3, S, S)
        tokens = cached_tokens(batch)
        if tokens is None and self._tokens is not None:
            tokens = self._tokens.take(images)
        with torch.no_grad(), eval_mode(self.tokenizer):
            latents = self.tokenizer.encode(images, tokens=tokens).latents  # (B, C, h, w)
            reconstructions = to_levels(self.tokenizer.decode(latents))  # (B, 3, S, S)
        real, fake = (  # logits (B, M)
            self.discriminator(self.discriminator.augment(x, generator)).float()
            for x in (images, reconstructions)
        )
        loss = hinge(real, fake)
        terms = (loss, real.detach().mean(), fake.detach().mean())
        return dict(zip(DISCRIMINATOR_TERMS, terms, strict=True)) | {"loss": loss}


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """``(mean relu(1 - real) + mean relu(1 + fake)) / 2`` of logits of any shape."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def to_levels(images: Tensor) -> Tensor:
    """Images in [0, 1] with each value rounded to one of the 256 levels k / 255."""
    return (images.clamp(0.0, 1.0) * 255).round() / 255


@contextmanager
def eval_mode(module: Module) -> Iterator[Module]:
    """Put the module in eval mode; afterwards restore the mode of each sub-module."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for submodule, training in modes:
            submodule.training = training


@contextmanager
def without_updates(discriminator: Discriminator) -> Iterator[Discriminator]:
    """Put the discriminator in eval mode and give its weights no gradients.

    With ``batch_statistics``, batch norm uses those of the batch but does not update its running
    averages.
    """
    trained = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    norms = [module for module in discriminator.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if discriminator.batch_statistics and norm.track_running_stats]
    with eval_mode(discriminator):
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield discriminator
        finally:
            for norm in norms:
                norm.track_running_stats = True
            for parameter in trained:
                parameter.requires_grad_(True)
