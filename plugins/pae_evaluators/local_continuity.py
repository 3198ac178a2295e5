"""LPC: how much the decoded image changes when the latent is perturbed.

PAE (arXiv 2605.07915), diagnostics. The perceptual distance is an argument; the paper uses LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Decode = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]


def radius_weights(rhos: Sequence[float]) -> list[float]:
    """Weights proportional to 1 / rho that sum to one."""
    total = sum(1 / rho for rho in rhos)
    return [1 / rho / total for rho in rhos]


@torch.no_grad()
def perceptual_change(
    latents: Tensor,
    decode: Decode,
    distance: Distance,
    rhos: Sequence[float],
    directions: int,
    generator: torch.Generator,
    batch_size: int = 50,
) -> Tensor:
    """Weighted perceptual change (M,) of each image; lower is more continuous.

    Every token z is moved by ``+-rho |z| u``, with u uniform on the unit sphere. The distances to
    the decoded latent are averaged over signs and directions, and over rho with weights
    proportional to 1 / rho.

    Args:
        latents: (M, C, h, w).
        decode: latents (B, C, h, w) to images (B, 3, S, S).
        distance: per-image distance (B,) of two batches of images.
        rhos: lengths of the moves, as fractions of the token's length.
        directions: random directions per image, each used with every rho.
        generator: draws the directions of one image after the other, so that ``batch_size`` does
            not change the result.
        batch_size: images decoded at once.
    """
    changes = []
    for z in latents.split(batch_size):  # (B, C, h, w)
        moves = _token_directions(z, directions, generator)  # (directions, B, C, h, w)
        clean = decode(z)  # (B, 3, S, S)
        change = torch.zeros(len(z), dtype=torch.float64)
        for rho, weight in zip(rhos, radius_weights(rhos), strict=True):
            for move in moves:
                for sign in (1, -1):
                    moved = distance(decode(z + sign * rho * move), clean)
                    change += moved.cpu().double() * (weight / (2 * directions))
        changes.append(change)
    return torch.cat(changes)


def _token_directions(z: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random moves (count, B, C, h, w), each token's as long as the token itself."""
    shape = (count, *z.shape[1:])
    noise = torch.stack([torch.randn(shape, generator=generator) for _ in z], dim=1).to(z)
    return noise / noise.norm(dim=2, keepdim=True) * z.norm(dim=1, keepdim=True)
