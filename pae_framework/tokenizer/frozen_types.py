"""The frozen networks of a tokenizer's training, in the type that they are computed in."""

from __future__ import annotations

import torch

from pae_framework.contracts import Discriminator
from pae_framework.tokenizer.losses.adversarial import eval_mode
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.training.frozen_casts import cast_frozen


def cast_frozen_networks(
    objective: TokenizerObjective, discriminator: Discriminator | None = None
) -> None:
    """Cast the frozen weights of encoder, refiner and discriminator for a training in bf16.

    Both are on the device. LPIPS stays in float32, in which it computes. See :func:`cast_frozen`.
    """
    tokenizer = objective.tokenizer
    size, device = tokenizer.encoder.image_size, next(tokenizer.parameters()).device
    images = torch.zeros(2, 3, size, size, device=device)

    def encode() -> None:
        tokenizer.features(images)
        objective.reconstruction.comparison()(images, images)  # may compare its features

    cast_frozen(tokenizer.encoder, encode)
    if "refiner" in objective.frozen_modules():
        refiner = objective.refiner
        cast_frozen(refiner, lambda: refiner.targets(tokenizer.features(images).tokens))
    if discriminator is not None:
        with eval_mode(discriminator):
            cast_frozen(discriminator, lambda: discriminator(images))
