"""Normalizations of the generators, over the last axis."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-6), computed in float32, in the type of x, times a learned weight.

    One kernel if the weight has the type of x.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis; same shape."""
        if x.dtype == self.weight.dtype == torch.float32:
            return F.rms_norm(x, x.shape[-1:], self.weight, eps=1e-6)
        unit = F.rms_norm(x.float(), x.shape[-1:], eps=1e-6)
        return unit.to(x.dtype) * self.weight


def token_norm(kind: str, width: int) -> nn.Module:
    """Norm of tokens before adaLN: RMSNorm, or LayerNorm without affine (eps 1e-6)."""
    if kind == "rms":
        return RMSNorm(width)
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def head_norm(kind: str, head_width: int) -> nn.Module:
    """Norm of queries or keys: RMSNorm, or LayerNorm with affine (eps 1e-5)."""
    return RMSNorm(head_width) if kind == "rms" else nn.LayerNorm(head_width)
