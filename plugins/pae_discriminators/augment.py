"""RAE's augmentation of the discriminator's input.

Differentiable augmentation (Zhao, Liu, Lin, Zhu and Han, NeurIPS 2020, arXiv 2006.10738) with the
numbers of RAE (arXiv 2510.11690). RAE's pixels are in [-1, 1], ours in [0, 1]: so changes of
brightness are halved, and the empty border is gray. Legend: B batch, S image side in px.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.seeding import on_device, rand

SHIFT = 1 / 8
"""Largest translation, as a share of the side."""
GRAY = 0.5
"""Fills the border that a translation leaves empty."""


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], each randomly translated and recolored; float32, not clamped.

    Translation by whole pixels up to an eighth of the side; brightness U(-0.25, 0.25); saturation
    by a factor U(0, 2); contrast by a factor U(0.5, 1.5), in this order. Gradients flow through.
    """
    uniform = on_device(rand((5, len(images)), generator, dim=1), images.device)
    across, down, brightness, saturation, contrast = uniform  # each (B,)
    images = translated(images.float(), _pixels(across, images), _pixels(down, images))
    images = images + _each(brightness - 0.5) / 2
    images = scaled_about(images, images.mean(dim=1, keepdim=True), 2 * saturation)
    return scaled_about(images, images.mean(dim=(1, 2, 3), keepdim=True), contrast + 0.5)


def translated(images: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Images moved right and down by whole pixels (B,); the empty border is gray."""
    B, _, S, _ = images.shape
    most = round(S * SHIFT)
    padded = F.pad(images, [most] * 4, value=GRAY)
    side = torch.arange(S, device=images.device)
    rows = (side[None] + most - down[:, None])[:, :, None]
    columns = (side[None] + most - across[:, None])[:, None, :]
    image = torch.arange(B, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)


def scaled_about(images: Tensor, center: Tensor, factor: Tensor) -> Tensor:
    """Images with their difference from ``center`` multiplied by ``factor`` (B,)."""
    return center + (images - center) * _each(factor)


def _pixels(uniform: Tensor, images: Tensor) -> Tensor:
    """Maps U(0, 1) to whole pixels, uniform from -most to most."""
    most = round(images.shape[-1] * SHIFT)
    return (uniform * (2 * most + 1)).floor().long() - most


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
