"""Synthetic numbers and images for checks: functions of a shape and a seed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def synthetic_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Images (count, 3, size, size) in [0, 1]: coarse colors with fine texture on them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 2, 2, generator=generator)
    smooth = F.interpolate(coarse, size, mode="bilinear", align_corners=True)
    texture = torch.rand(count, 3, size, size, generator=generator)
    return 0.7 * smooth + 0.3 * texture
