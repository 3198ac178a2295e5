"""Embeddings of latents, times and labels.

Legend: B batch, N tokens, D width, C latent channels, p patch, F frequencies.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pae_framework.layers import map_to_tokens
from pae_generators.config import FOURIER, SINUSOIDS
from pae_generators.positions import compute_dtype


class PatchEmbedding(nn.Module):
    """Patches of p x p latent cells to tokens: (B, C, h, w) to (B, N, D)."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def initialize(self) -> None:
        """Initialize like a linear layer on flattened patches: Xavier-uniform, bias 0."""
        nn.init.xavier_uniform_(self.proj.weight.view(self.proj.out_channels, -1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, N, D)."""
        tokens = map_to_tokens(self.proj(x))
        # A convolution's result has the tokens of a channel side by side. Sums keep that layout, so
        # all blocks would read and write with strides. Float32 on the CPU keeps it, because sums in
        # another order would change the last digits of earlier results.
        as_before = x.device.type == "cpu" and compute_dtype(x) == torch.float32
        return tokens if as_before else tokens.contiguous()


def time_embedding(kind: Literal["sinusoid", "fourier"], width: int) -> nn.Module:
    """A module that embeds times: (B,) to (B, D)."""
    return TimeEmbedding(width) if kind == "sinusoid" else FourierTimeEmbedding(width)


class TimeEmbedding(nn.Module):
    """Sinusoids of t, cosines first, then a two-layer MLP: (B,) to (B, D) (LightningDiT).

    t in [0, 1] is not multiplied by 1000; the sinusoids are always float32.
    """

    def __init__(self, width: int):
        super().__init__()
        self.mlp = TimeMlp(SINUSOIDS, width)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) to (B, D)."""
        half = SINUSOIDS // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t.float()[:, None] * torch.exp(-math.log(10_000) * exponents)  # (B, F)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class FourierTimeEmbedding(nn.Module):
    """[sin(2 pi W t), cos(2 pi W t)] with fixed W ~ N(0, 1), then an MLP: (B,) to (B, D) (RAE)."""

    def __init__(self, width: int):
        super().__init__()
        # Not trained, but a weight in released files.
        self.W = nn.Parameter(torch.randn(FOURIER), requires_grad=False)
        self.mlp = TimeMlp(2 * FOURIER, width)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) to (B, D)."""
        angles = 2 * math.pi * t.float()[:, None] * self.W.float()  # (B, F)
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


class TimeMlp(nn.Sequential):
    """Two linear layers around SiLU; converts its input to the type of its weights."""

    def __init__(self, inputs: int, width: int):
        super().__init__(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, code: Tensor) -> Tensor:
        """(B, inputs) to (B, D)."""
        return super().forward(code.to(next(self.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """A table of K classes and, last, the null label: (B,) to (B, D).

    Unconditional networks have K = 0: every label gets the null row.
    """

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.conditional = num_classes > 0
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """(B,) to (B, D)."""
        return self.embedding_table(labels if self.conditional else torch.zeros_like(labels))
