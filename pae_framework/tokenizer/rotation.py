"""Latents whose tokens are rotated by an angle in a random direction; each keeps its norm."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.seeding import on_device, randn


def random_tangent(z: Tensor, generator: torch.Generator) -> Tensor:
    """For each token z of (B, C, h, w): a random u with u . z = 0 and |u| = |z|."""
    noise = randn(z.shape, generator)
    noise = on_device(noise, z.device).to(z.dtype)
    unit = F.normalize(z, dim=1)
    tangent = noise - unit * (noise * unit).sum(dim=1, keepdim=True)
    return F.normalize(tangent, dim=1) * z.norm(dim=1, keepdim=True)


def rotate(z: Tensor, tangent: Tensor, angle: float) -> Tensor:
    """cos(angle) z + sin(angle) u: each token z rotated by ``angle`` (radians) towards u.

    Equal to z + tan(angle) u rescaled to length |z|, the paper's form.
    """
    return math.cos(angle) * z + math.sin(angle) * tangent
