"""The one place where pixels change their kind: uint8 and float, and the crop of ADM."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1], in pinned memory where the images are in such."""
    floats = torch.empty_like(images, dtype=torch.float32, pin_memory=images.is_pinned())
    return floats.copy_(images).div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] to uint8: ``trunc(255 clamp(x, 0, 1))``, as RAE and PAE write images."""
    return (255 * images.detach().float().clamp(0, 1)).to(torch.uint8)


def adm_centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Centre square of ``size`` px, as ADM (guided-diffusion) makes its training images.

    Halve with a box filter while the shorter side is at least ``2 size``, shrink or enlarge to
    ``size`` with a bicubic filter, cut the middle. LightningDiT, RAE and PAE do the same.
    """
    while min(image.size) >= 2 * size:
        width, height = image.size
        image = image.resize((width // 2, height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
