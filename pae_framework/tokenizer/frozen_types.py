"""The frozen networks of a tokenizer, in the type that they are computed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pae_framework.contracts import Discriminator, Tokenizer
from pae_framework.tokenizer.losses.adversarial import eval_mode
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.training.frozen_casts import cast_frozen


def cast_frozen_networks(
    objective: TokenizerObjective, discriminator: Discriminator | None = None
) -> None:
    """Cast the frozen weights of a training in bf16: encoder, teacher, refiner, discriminator.

    Both are on the device. LPIPS stays in float32, in which it computes. See :func:`cast_frozen`.
    """
    tokenizer = objective.tokenizer
    images = _images_for(tokenizer.encoder.image_size, tokenizer)

    def encode() -> list[Tensor]:
        compare = objective.reconstruction.comparison()  # may compare features of the encoder
        return [tokenizer.features(images()).tokens, *compare(images(), images()).values()]

    cast_frozen(tokenizer.encoder, encode)
    if "teacher" in objective.frozen_modules():
        teacher = objective.teacher
        cast_frozen(teacher, lambda: [teacher(images())])
    if "refiner" in objective.frozen_modules():
        refiner = objective.refiner
        cast_frozen(refiner, lambda: [refiner.targets(tokenizer.features(images()).tokens)])
    if discriminator is not None:
        with eval_mode(discriminator):
            cast_frozen(discriminator, lambda: [discriminator(images())])


def cast_for_encoding(tokenizer: Tokenizer, image_size: int) -> None:
    """Cast the weights of a frozen tokenizer with which it encodes; see :func:`cast_frozen`."""
    images = _images_for(image_size, tokenizer)
    cast_frozen(tokenizer, lambda: [tokenizer.encode(images()).latents])


def _images_for(size: int, tokenizer: Tokenizer) -> Callable[[], Tensor]:
    """Draws two images (2, 3, S, S) on the tokenizer's device."""
    device = next((weight.device for weight in tokenizer.parameters()), None)
    return lambda: torch.rand(2, 3, size, size, device=device)
