"""A training step of the tokenizer: as trained, compared with the reference implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.plain_objective import PlainObjective
from benchmarks.timing import Timing, in_turn, repeated
from pae_framework.build import (
    build_discriminator,
    build_encoder,
    build_refiner,
    build_regularizers,
    build_tokenizer,
)
from pae_framework.contracts import Discriminator
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.seeding import generator, seeded
from pae_framework.tokenizer.frozen_types import cast_frozen_networks
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm, DiscriminatorLoss, Schedule
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.tokenizer.losses.reconstruction import ReconstructionTerms
from pae_framework.tokenizer.step_tokens import StepTokens
from pae_framework.training.loop import Trainer
from pae_framework.training.progress import ProgressLine
from pae_framework.training.task import TrainContext, TrainTask

PATCHGAN = "tokenizer.adversarial={weight: 0.5, adaptive: true, discriminator: {use: patchgan}}"
LPIPS = "tokenizer.reconstruction.lpips={weight: 1.0, weights: none}"
LPIPS_ONLY = (LPIPS, "tokenizer.reconstruction.perceptual.weight=0")
FAR = 10**6
"""Steps of a training that is never finished."""


@dataclass(frozen=True)
class TokenizerStep:
    """Training steps of a recipe's tokenizer with its discriminator, with random weights.

    Args:
        device: of the networks.
        changes: overrides of the recipe, one with an adversarial term.
        bf16: the training's precision.
        plain: compute the loss by the reference implementation.
        recipe: whose sizes are used.
    """

    device: torch.device
    changes: Sequence[str]
    bf16: bool = False
    plain: bool = False
    recipe: str = "fashion_mnist"

    def build(self) -> BuiltStep:
        """The networks and their trainer."""
        precision = "bf16" if self.bf16 else "float32"
        changes = [*self.changes, f"tokenizer.train.precision={precision}"]
        loaded = load_recipe(self.recipe, changes, load_registry())
        section, registry = loaded.recipe.tokenizer, loaded.registry
        size, adversarial = loaded.recipe.data.image_size, section.active_adversarial
        assert adversarial is not None
        tokens = None if self.plain else StepTokens()
        with seeded("benchmark"):
            encoder = build_encoder(section.encoder, size, registry)
            tokenizer = build_tokenizer(section, size, registry, encoder)
            refiner = build_refiner(section, encoder) if section.refinement else None
            discriminator = build_discriminator(adversarial.discriminator, size, registry)
            term = AdversarialTerm(
                discriminator, Schedule(0, 0, 0), adversarial.weight, adversarial.adaptive, tokens
            )
            objective = (PlainObjective if self.plain else TokenizerObjective)(
                tokenizer,
                ReconstructionTerms(section.reconstruction, encoder),
                build_regularizers(section, registry, tokenizer),
                term,
                target=section.active_target,
                refiner=refiner,
                noise=section.noise,
            ).to(self.device)
        discriminator.to(self.device)
        if self.bf16 and not self.plain:
            cast_frozen_networks(objective, discriminator)
        own = TrainTask(
            DiscriminatorLoss(discriminator, tokenizer, tokens), optimizer=adversarial.optimizer
        )
        task = TrainTask(
            objective, discriminator=own, begin_step=objective.begin_step, check=objective.check
        )
        context = TrainContext(Path(), self.device, "tokenizer", 0, partial(ProgressLine, ""))
        trainer = Trainer(task, section.train, FAR, context)
        return BuiltStep(objective, discriminator, trainer, section.train.batch_size, size)


class BuiltStep:
    """Takes one training step on random images at each call."""

    def __init__(
        self,
        objective: TokenizerObjective,
        discriminator: Discriminator,
        trainer: Trainer,
        batch: int,
        size: int,
    ):
        self.objective, self.discriminator, self.trainer = objective, discriminator, trainer
        self.batch, self.size, self.steps = batch, size, 0

    def __call__(self) -> dict[str, Tensor]:
        """The terms of the step."""
        shape = (self.batch, 3, self.size, self.size)
        images = torch.rand(shape, generator=generator("images", self.steps))
        terms = self.trainer.train_step(self.steps, (images,))
        self.steps += 1
        return terms


def against_plain(
    device: torch.device, changes: Sequence[str], bf16: bool, rounds: int, steps: int
) -> list[Timing]:
    """A step of the reference implementation, compared with a step as trained."""
    ways = {
        name: repeated(TokenizerStep(device, changes, bf16, plain).build(), steps, device)
        for name, plain in (("as trained", False), ("reference", True))
    }
    return in_turn(ways, rounds)
