"""Rotary positions on a map of tokens (RoFormer, Su et al. 2021, in two dimensions)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each (N, 1, K), in the type queries and keys are computed in."""


class RotaryPositions(nn.Module):
    """Rotary positions on a grid x grid map: one table for all blocks and heads.

    The first half of a head's K dimensions turns with the row, the second with the column. In each
    half, adjacent dimensions are a pair that turns by m f_j, f_j = 10000^(-2j / (K/2)), at place m.

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

    def forward(self, like: Tensor) -> Rotation:
        """The table for one pass over tokens ``like``, cast once for all blocks.

        Angles, cosines and sines are made in float32. Only the finished table is rounded to the
        type in which linear layers compute (autocast's, where it is on), which costs what rounding
        queries and keys to that type costs anyway; turning them in float32, as the original does
        under autocast, would double the memory they pass through.
        """
        dtype = compute_dtype(like)
        return self.freqs_cos[:, None].to(dtype), self.freqs_sin[:, None].to(dtype)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn queries or keys (B, N, H, K): x cos + (-x_1, x_0, -x_3, x_2, ...) sin."""
    cos, sin = rotation
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return x * cos + turned * sin


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type linear layers give for x: autocast's, where it is on."""
    device = x.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else x.dtype
