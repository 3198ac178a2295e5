"""Augmentation of training images on their device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.seeding import rand


def random_crop(images: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    """A random square of each image, enlarged to the full size (bilinear).

    Args:
        images: (B, 3, S, S).
        smallest: smallest side as a fraction of S; sides are uniform between it and 1.
        generator: on the CPU, so that every device gets the same numbers.
    """
    if smallest == 1:
        return images
    u = rand((3, len(images)), generator, dim=1)
    side = smallest + (1 - smallest) * u[0]
    offset = (1 - side) * (2 * u[1:] - 1)
    zero = torch.zeros_like(side)
    rows = torch.stack([side, zero, offset[0], zero, side, offset[1]], dim=1)
    theta = rows.view(-1, 2, 3).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")
