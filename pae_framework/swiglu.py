"""Transformer blocks of GAE (arXiv 2603.10365): no biases, norms without weights, gated MLPs.

Names of weights are those of its released files. Legend: B batch, N tokens, D width, H heads,
F hidden width of the MLPs, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.layers import join_heads, split_heads
from pae_framework.swiglu_settings import SwigluSettings, gated_width


def last_axis_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) over the last axis, in float32, in the type of x."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=1e-6).to(x.dtype)


def learned_positions(grid: int, width: int) -> nn.Parameter:
    """Initial positions (1, N, D) of grid x grid tokens."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, grid**2, width), std=0.02))


def swiglu_blocks(settings: SwigluSettings) -> nn.ModuleList:
    """The blocks of a network."""
    return nn.ModuleList(SwigluBlock(settings.width, settings.heads) for _ in range(settings.depth))


class SwigluBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = NormedAttention(width, heads)
        self.mlp = GatedMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.attn(last_axis_norm(x))
        return x + self.mlp(last_axis_norm(x))


class NormedAttention(nn.Module):
    """Self-attention with normalized queries and keys; rows ``[q | k | v]``, heads inner."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, dim=-1))  # (B, H, N, K)
        attended = F.scaled_dot_product_attention(last_axis_norm(q), last_axis_norm(k), v)
        return self.proj(join_heads(attended))


class GatedMlp(nn.Module):
    """SwiGLU: fc2(silu(fc1(x)) * gate(x))."""

    def __init__(self, width: int):
        super().__init__()
        hidden = gated_width(width)
        self.fc1 = nn.Linear(width, hidden, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.fc2(F.silu(self.fc1(x)) * self.gate(x))
