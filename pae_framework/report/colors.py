"""Latents as colors: the first three principal components of all tokens as red, green, blue.

Legend: M images, C channels, h x w the grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def latent_colors(latents: Tensor) -> Tensor:
    """Latents (M, C, h, w) as colors (M, 3, h, w) uint8.

    The 2nd to 98th percentile of each component are spread over 0 to 255. A component without
    variance is 128 everywhere. The largest loading of each is positive, which fixes the sign.
    """
    M, _, h, w = latents.shape
    scores, _ = principal_components(latents)
    low, high = torch.quantile(_subset(scores), scores.new_tensor([0.02, 0.98]), dim=0)
    # A few tokens that differ (tiny objects) can lie outside both percentiles.
    flat = high - low <= 0
    low = torch.where(flat, scores.amin(0), low)
    high = torch.where(flat, scores.amax(0), high)
    width = high - low
    unit = (scores - low) / width.clamp_min(torch.finfo(width.dtype).tiny)
    unit = torch.where(width > 0, unit.clamp(0, 1), torch.full_like(unit, 128 / 255))
    return (unit * 255).round().to(torch.uint8).view(M, h, w, 3).permute(0, 3, 1, 2).contiguous()


def principal_components(latents: Tensor) -> tuple[Tensor, Tensor]:
    """First three principal components of all tokens of latents (M, C, h, w).

    Returns scores (M * h * w, 3) and the share of variance of each component (3,), float64.
    Components that are numerically zero, or missing because C < 3, are exactly 0. Values that are
    not finite count as 0, so that a diverged run can still be shown.
    """
    C = latents.shape[1]
    tokens = latents.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
    tokens = tokens.permute(0, 2, 3, 1).reshape(-1, C)
    tokens = tokens - tokens.mean(0)
    variances, axes = torch.linalg.eigh(tokens.T @ tokens / len(tokens))
    order = variances.argsort(descending=True)[:3]
    variances, axes = variances[order].clamp_min(0), axes[:, order]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    real = (variances > 1e-12 * variances[0]).to(tokens.dtype)
    scores = tokens @ (axes * signs) * real
    total = tokens.square().sum(1).mean().clamp_min(torch.finfo(torch.float64).tiny)
    missing = 3 - scores.shape[1]
    return F.pad(scores, (0, missing)), F.pad(variances * real / total, (0, missing))


def _subset(scores: Tensor, most: int = 1_000_000) -> Tensor:
    """At most ``most`` evenly spaced rows: torch.quantile takes at most 16 million values."""
    return scores[:: -(-len(scores) // most)]
