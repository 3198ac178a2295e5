"""How LightningDiT takes in latents, places, times and labels (hustvl/LightningDiT, 2725fed)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pae_framework.layers import map_to_tokens


class PatchEmbedding(nn.Module):
    """Patches of p x p latent cells to tokens: (B, C, h, w) to (B, N, D)."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches."""
        return map_to_tokens(self.proj(x))


class TimeEmbedding(nn.Module):
    """Sinusoids of t, cosines first, then a two-layer MLP: (B,) to (B, D).

    t in [0, 1] is taken as it is, not times 1000; the sinusoids are always float32.
    """

    frequencies = 256

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(self.frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Embed the times."""
        half = self.frequencies // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class LabelEmbedding(nn.Module):
    """One row for each of K classes and a last one for the null label: (B,) to (B, D)."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Embed the labels."""
        return self.embedding_table(labels)


class RotaryPositions(nn.Module):
    """Rotary positions on a grid x grid map: one table for all blocks and heads.

    The first half of a head's K dimensions turns with the row, the second with the column. In each
    half, adjacent dimensions are a pair that turns by m f_j, f_j = 10000^(-2j / (K/2)), at place m
    (RoFormer, Su et al. 2021, in two dimensions).

    Args:
        grid: tokens per side.
        head_width: K, a multiple of 4.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, grid: int, head_width: int):
        super().__init__()
        axis = head_width // 2
        frequencies = 10_000.0 ** -(torch.arange(0, axis, 2, dtype=torch.float32) / axis)
        angles = torch.arange(grid, dtype=torch.float32)[:, None] * frequencies
        angles = angles.repeat_interleave(2, dim=1)
        rows = angles[:, None, :].expand(grid, grid, axis)
        columns = angles[None, :, :].expand(grid, grid, axis)
        table = torch.cat([rows, columns], dim=-1).reshape(grid * grid, head_width)
        self.register_buffer("freqs_cos", table.cos())
        self.register_buffer("freqs_sin", table.sin())

    def forward(self, x: Tensor) -> Tensor:
        """Turn queries or keys (B, H, N, K), computed in float32."""
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-odd, even], dim=-1).flatten(-2)
        return x * self.freqs_cos + turned * self.freqs_sin
