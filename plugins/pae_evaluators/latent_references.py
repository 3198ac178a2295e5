"""Latents that those of a tokenizer are compared with: principal components of pixels, and noise.

Legend: M, B images, S side in px, C channels, g side of the token grid, P numbers of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.data.pixels import to_float
from pae_framework.layers import map_to_tokens, patchify, unpatchify

_BATCH = 250
"""Images that are floats at once."""
_ITERATIONS = 10
"""Of the subspace iteration: the error shrinks by the ratio of two variances in each."""


@dataclass(frozen=True)
class PixelComponents:
    """A linear tokenizer: the first principal components of each patch of pixels.

    Args:
        mean: patch (P,).
        components: orthonormal columns (P, C), the one of largest variance first.
        grid: patches per side.
        side: of the images, in px; they are resized if it is no multiple of ``grid``.
    """

    mean: Tensor
    components: Tensor
    grid: int
    side: int

    @classmethod
    def of(cls, images: Tensor, grid: int, channels: int) -> PixelComponents:
        """Fit ``channels`` components, or P if that is less, to images (M, 3, S, S) uint8."""
        side = images.shape[-1]
        patches = _patches(to_float(images), grid).flatten(0, 1)  # (M * g * g, P)
        mean = patches.mean(0)
        centered = (patches - mean).double()
        return cls(mean, _principal_directions(centered, channels).float(), grid, side)

    @property
    def channels(self) -> int:
        """C."""
        return self.components.shape[1]

    def encode(self, images: Tensor) -> Tensor:
        """Latents (M, C, g, g) of images (M, 3, S, S) uint8."""
        latents = (_patches(to_float(images), self.grid) - self.mean) @ self.components
        return latents.transpose(1, 2).unflatten(2, (self.grid, self.grid))

    def pooled(self, images: Tensor) -> Tensor:
        """Latents (M, C) of images (M, 3, S, S) uint8, averaged over each image."""
        return torch.cat([self.encode(part).mean((2, 3)) for part in images.split(_BATCH)])

    def decode(self, latents: Tensor) -> Tensor:
        """Images (M, 3, S, S) of latents (M, C, g, g)."""
        patches = map_to_tokens(latents) @ self.components.T + self.mean
        return _resized(unpatchify(patches, math.isqrt(len(self.mean) // 3)), self.side)


def _principal_directions(rows: Tensor, count: int) -> Tensor:
    """Right singular vectors (P, ``count``) of rows (N, P), that of the largest value first.

    By subspace iteration if few are wanted, because a full decomposition takes P^3 operations.
    """
    size, width = rows.shape[1], 2 * count
    if width >= size:
        basis = torch.eye(size, dtype=rows.dtype)
    else:
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(size, width, generator=generator, dtype=rows.dtype)
        for _ in range(_ITERATIONS):
            basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    projected = rows @ basis
    rotation = torch.linalg.eigh(projected.T @ projected).eigenvectors  # ascending
    return basis @ rotation[:, -count:].flip(1)


def _patches(images: Tensor, grid: int) -> Tensor:
    """Patches (B, g * g, P) of images (B, 3, S, S)."""
    patch = -(-images.shape[-1] // grid)
    return patchify(_resized(images, patch * grid), patch)


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def random_latents(*shape: int, seed: int) -> Tensor:
    """Independent normal numbers, which know nothing of the images."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def other_images(count: int, seed: int) -> Tensor:
    """For each of ``count`` images, at least two, the index of another one; each is used once."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    others = torch.empty_like(order)
    others[order] = order.roll(1)
    return others
