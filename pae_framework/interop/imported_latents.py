"""Latents of a few images by an imported tokenizer, beside those known of a released one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.data.images import random_subset, read_images
from pae_framework.data.pixels import to_float_on
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.recipe.models import Recipe

IMAGES = 16
"""Images that are encoded; few, because encoders of real size are slow on a CPU."""
BATCH = 4

_RELEASED = ("dinov2", 1024, "sphere", LatentShape(32, 16))
"""Encoder, its token width, bottleneck and latents of the released DINOv2-L tokenizer."""


@dataclass(frozen=True)
class LatentMoments:
    """Mean, standard deviation and root mean square of all values of some latents."""

    images: int
    mean: float
    deviation: float
    rms: float

    @classmethod
    def of(cls, latents: Tensor) -> LatentMoments:
        """Those of latents (B, C, h, w)."""
        values = latents.double()
        mean, square = values.mean(), values.square().mean()
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        return cls(len(latents), mean.item(), deviation.item(), square.sqrt().item())

    def __str__(self) -> str:
        return (
            f"latents of {self.images} test images: mean {self.mean:.3f}, deviation "
            f"{self.deviation:.3f}, root mean square {self.rms:.3f}"
        )


@torch.no_grad()
def describe_latents(context: StageContext) -> str:
    """The moments of the latents of a few test images, in a line.

    Raises:
        DataError: the images cannot be read.
    """
    source, tokenizer = context.test_source, trained_tokenizer(context)
    chosen = random_subset(len(source), IMAGES, seed=0)
    batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    latents = [
        tokenizer.encode(to_float_on(read_images(source, batch)[0], context.device)).latents.cpu()
        for batch in batches
    ]
    found = str(LatentMoments.of(torch.cat(latents)))
    if not is_released(context.recipe):
        return found
    return f"{found}; reported for the released DINOv2-L on ImageNet: 0.212, 0.977 and 1"


def is_released(recipe: Recipe) -> bool:
    """Whether latents have the moments that were reported for the released DINOv2-L tokenizer."""
    if (section := recipe.composed) is None:
        return False
    encoder, latent = section.encoder, section.latent_shape(recipe.data.image_size)
    width = encoder.config.token_width()
    return (encoder.use, width, section.bottleneck.use, latent) == _RELEASED
