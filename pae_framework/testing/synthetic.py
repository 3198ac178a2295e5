"""Made-up numbers and pictures for checks: functions of a shape and a seed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def draw(*shape: int, seed: int) -> Tensor:
    """Numbers from the standard normal, a function of shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def synthetic_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Images (count, 3, size, size) in [0, 1]: coarse colours with fine texture on them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 2, 2, generator=generator)
    smooth = F.interpolate(coarse, size, mode="bilinear", align_corners=True)
    texture = torch.rand(count, 3, size, size, generator=generator)
    return 0.7 * smooth + 0.3 * texture


class SyntheticExtractor:
    """Six fixed random projections of the pixels."""

    name = "made_up"

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, 6) float64 of uint8 images (M, 3, S, S)."""
        flat = images.double().flatten(1) / 255
        return flat @ draw(flat.shape[1], 6, seed=11).double()
