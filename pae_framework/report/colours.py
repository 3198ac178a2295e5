"""Latents as colours: what the first principal components of all tokens look like in place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def latent_colours(latents: Tensor) -> Tensor:
    """Latents (M, C, h, w) as colours (M, 3, h, w) uint8: red, green and blue are the first three
    principal components of all tokens.

    Each component is spread over 0..255 between its 2nd and 98th percentile; one without variance
    is 128 everywhere. The sign is fixed by making the largest loading positive.
    """
    M, _, h, w = latents.shape
    scores, _ = principal_components(latents)
    low, high = torch.quantile(_subset(scores), scores.new_tensor([0.02, 0.98]), dim=0)
    # few tokens that stand out (masks of tiny objects) can lie outside both percentiles
    flat = high - low <= 0
    low = torch.where(flat, scores.amin(0), low)
    high = torch.where(flat, scores.amax(0), high)
    width = high - low
    unit = (scores - low) / width.clamp_min(torch.finfo(width.dtype).tiny)
    unit = torch.where(width > 0, unit.clamp(0, 1), torch.full_like(unit, 128 / 255))
    return (unit * 255).round().to(torch.uint8).view(M, h, w, 3).permute(0, 3, 1, 2).contiguous()


def principal_components(latents: Tensor) -> tuple[Tensor, Tensor]:
    """First three principal components of all tokens of latents (M, C, h, w).

    Returns scores (M * h * w, 3) and the share of the variance each holds (3,), float64.
    Components that are numerically zero, or that C < 3 does not have, are exactly 0. Values that
    are not finite count as 0, so that a run that diverged can still be looked at.
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
    """At most ``most`` evenly spaced rows: torch.quantile takes no more than 16 million values."""
    return scores[:: -(-len(scores) // most)]
