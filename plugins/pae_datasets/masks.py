"""Read segmentation masks from PNG files.

Shapes: S side of the mask in px.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pae_framework.data.image_files import decoding, open_image, upright_size
from pae_framework.data.pixels import adm_center_crop_labels
from pae_framework.errors import DataError

_IDS = np.array([1, 256, 65536])
"""Weights of red, green and blue in the id that a color means, as in COCO's panoptic masks."""


def read_mask(path: Path, image: Path, size: int) -> Tensor:
    """Read a mask as labels (size, size) int64, with ADM's center crop; each is the nearest one.

    Labels are the numbers that the file holds: indices into a palette, gray values of up to 16
    bits, or ``R + 256 G + 65536 B`` of a color. Transparency is ignored.

    Args:
        path: of the mask.
        image: its image, whose size it must have.
        size: side in px.

    Raises:
        DataError: the mask is missing, damaged, no PNG file, has 16 bits for each color, or another
            size than the image; names the file.
    """
    with open_image(path) as opened:
        _require_exact_labels(opened, path)
        with decoding(path):
            numbers = np.asarray(opened)
    height, width = upright_size(image)
    if numbers.shape[:2] != (height, width):
        raise DataError(
            f"{path} has {numbers.shape[1]} x {numbers.shape[0]} px, but its image {image} has "
            f"{width} x {height}; a mask must have the size of its image"
        )
    labels = adm_center_crop_labels(numbers, size).astype(np.int64)
    if labels.ndim == 3:
        colors = labels.shape[2] >= 3
        labels = labels[..., :3] @ _IDS if colors else labels[..., 0]
    return torch.from_numpy(labels)


def _require_exact_labels(mask: Image.Image, path: Path) -> None:
    if mask.format != "PNG":
        raise DataError(f"{path} is {mask.format} inside; masks are PNG files, which keep labels")
    tiles = getattr(mask, "tile", None)
    if tiles and str(tiles[0][3]).endswith(";16B") and not mask.mode.startswith("I"):
        raise DataError(
            f"{path} has 16 bits for each of {len(mask.getbands())} channels, of which Pillow "
            "reads 8; write labels as gray values of 16 bits, or as colors of 8 bits"
        )
