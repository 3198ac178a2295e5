"""How the generators take in latents, times and labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pae_framework.layers import map_to_tokens, sincos_positions
from pae_generators.config import FOURIER, SINUSOIDS


class PatchEmbedding(nn.Module):
    """Patches of p x p latent cells to tokens: (B, C, h, w) to (B, N, D)."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def initialize(self) -> None:
        """Xavier-uniform over the flattened patches, no bias: as if it were a linear layer."""
        nn.init.xavier_uniform_(self.proj.weight.view(self.proj.out_channels, -1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches."""
        return map_to_tokens(self.proj(x))


def fixed_positions(grid: int, width: int) -> nn.Parameter:
    """Sine-cosine codes (1, N, D): a parameter, though it never learns.

    The originals count it and save it as one.
    """
    return nn.Parameter(sincos_positions(grid, width), requires_grad=False)


class TimeEmbedding(nn.Module):
    """Sinusoids of t, cosines first, then a two-layer MLP: (B,) to (B, D) (LightningDiT).

    t in [0, 1] is taken as it is, not times 1000; the sinusoids are always float32.
    """

    def __init__(self, width: int):
        super().__init__()
        self.mlp = TimeMlp(SINUSOIDS, width)

    def forward(self, t: Tensor) -> Tensor:
        """Embed the times."""
        half = SINUSOIDS // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class FourierTimeEmbedding(nn.Module):
    """[sin(2 pi W t), cos(2 pi W t)] with fixed W ~ N(0, 1), then an MLP: (B,) to (B, D) (RAE)."""

    def __init__(self, width: int):
        super().__init__()
        # A parameter, though it never learns: the original saves it as one.
        self.W = nn.Parameter(torch.randn(FOURIER), requires_grad=False)
        self.mlp = TimeMlp(2 * FOURIER, width)

    def forward(self, t: Tensor) -> Tensor:
        """Embed the times."""
        angles = 2 * math.pi * t.float()[:, None] * self.W.float()
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


class TimeMlp(nn.Sequential):
    """Two linear layers around SiLU; takes float32 also where its weights are of another type."""

    def __init__(self, inputs: int, width: int):
        super().__init__(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, code: Tensor) -> Tensor:
        """(B, inputs) to (B, D)."""
        return super().forward(code.to(next(self.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """One row for each of K classes and a last one for the null label: (B,) to (B, D).

    Unconditional networks have K = 0: the null row alone, whatever the labels are.
    """

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.conditional = num_classes > 0
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Embed the labels."""
        return self.embedding_table(labels if self.conditional else torch.zeros_like(labels))
