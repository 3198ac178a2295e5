"""Pictures that evaluators write beside their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pae_framework.system.files import replacing

_GAP = 2
"""White pixels between images."""
_SMALL = 64
"""Images of a smaller side are enlarged by a whole factor."""


def save_rows(columns: Sequence[Tensor], path: Path) -> None:
    """Write images as a PNG file; row i has the i-th image of each column.

    Args:
        columns: images (M, 3, S, S) uint8 each.
        path: of the file.
    """
    images = torch.stack([*columns], dim=1)  # (M, columns, 3, S, S)
    factor = max(1, _SMALL // images.shape[-1])
    images = images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    rows, width, _, side, _ = images.shape
    step = side + _GAP
    canvas = torch.full((rows * step - _GAP, width * step - _GAP, 3), 255, dtype=torch.uint8)
    for row in range(rows):
        for column in range(width):
            top, left = row * step, column * step
            pixels = images[row, column].permute(1, 2, 0)
            canvas[top : top + side, left : left + side] = pixels
    with replacing(path) as temporary:
        Image.fromarray(canvas.numpy()).save(temporary, format="PNG")
