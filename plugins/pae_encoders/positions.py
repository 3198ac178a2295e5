"""Learned position codes, resized to another grid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pae_framework.layers import map_to_tokens, tokens_to_map


def resize_positions(positions: Tensor, grid: int, antialias: bool) -> Tensor:
    """Position codes (1, n * n, D) for ``grid`` x ``grid`` tokens: (1, grid * grid, D).

    Bicubic (``align_corners`` False), in float32; unchanged where the grid is the same. This is how
    transformers 4.57 resizes at every forward pass, with antialiasing for DINOv2 with registers and
    without it for DINOv2 without, MAE and SigLIP. (timm resizes once, when it loads, and with
    antialiasing for all.)
    """
    if positions.shape[1] == grid * grid:
        return positions
    learned = tokens_to_map(positions.float())
    resized = F.interpolate(
        learned, size=(grid, grid), mode="bicubic", align_corners=False, antialias=antialias
    )
    return map_to_tokens(resized).to(positions.dtype)
