"""Positions of tokens on a map: fixed sine-cosine codes, and rotary positions.

Legend: B batch, N tokens, D width, H heads, K dimensions of a head, g tokens per side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pae_framework.layers import sincos_positions

Rotation = tuple[Tensor, Tensor]
"""Cosines, and sines with the sign of the rotation (-, +, -, +, ...), each (N, 1, K), in the type
of queries and keys."""


def fixed_positions(grid: int, width: int) -> nn.Parameter:
    """Sine-cosine codes (1, N, D). Not trained, but a weight in released files."""
    return nn.Parameter(sincos_positions(grid, width), requires_grad=False)


class RotaryPositions(nn.Module):
    """Rotary positions on a grid x grid map (RoFormer, Su et al. 2021): one table for all blocks.

    The first half of a head's K dimensions rotates with the row, the second with the column. In
    each half, adjacent dimensions are a pair that rotates by m f_j at position m, with
    f_j = 10000^(-2j / (K/2)).

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
        angles = torch.arange(grid, dtype=torch.float32)[:, None] * frequencies  # (g, K/4)
        angles = angles.repeat_interleave(2, dim=1)  # (g, K/2)
        rows = angles[:, None, :].expand(grid, grid, axis)  # (g, g, K/2)
        columns = angles[None, :, :].expand(grid, grid, axis)
        table = torch.cat([rows, columns], dim=-1).reshape(grid * grid, head_width)  # (N, K)
        self.register_buffer("freqs_cos", table.cos())
        self.register_buffer("freqs_sin", table.sin())

    def forward(self, like: Tensor) -> Rotation:
        """The table for tokens ``like``, cast once for all blocks.

        Angles, cosines and sines are computed in float32. Only the finished table is rounded to the
        type of linear layers (autocast's, if it is on); queries and keys are rounded to that type
        anyway. Rotating them in float32, as the original does under autocast, would double their
        memory traffic.
        """
        dtype = compute_dtype(like)
        even, odd = self.freqs_sin.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)  # each (N, K/2)
        signed = torch.stack([-even, odd], dim=-1).flatten(-2)
        return self.freqs_cos.to(dtype)[:, None], signed[:, None]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate queries or keys (B, N, H, K): x cos + (x_1, x_0, x_3, x_2, ...) (-sin, sin, ...)."""
    cos, signed_sin = rotation
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cos + swapped * signed_sin


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type of a linear layer's output for x: autocast's, if it is on."""
    device = x.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else x.dtype
