"""Pixels: conversion between uint8 and float, ADM's crop, and PSNR.

Shapes: images (B, C, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pae_framework.data.data_settings import ResizeSettings

_LONGEST = 64
"""Sides up to this multiple of the crop are resized before they are cropped, as ADM does."""
UINT8 = "trunc(255 * clamp(x, 0, 1))"
"""How :func:`to_uint8` rounds, for protocols."""
_MSE_FLOOR = 1e-10  # gives identical images 100 dB, so that means are finite


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]; in pinned memory if the images are."""
    floats = torch.empty_like(images, dtype=torch.float32, pin_memory=images.is_pinned())
    return floats.copy_(images).div_(255)


def to_float_on(images: Tensor, device: torch.device) -> Tensor:
    """uint8 0..255 to float32 in [0, 1] on a device, with the bits of :func:`to_float`.

    A quarter of the bytes are copied; nobody waits for them if the images are in pinned memory.
    """
    floats = images.to(device, non_blocking=True).to(torch.float32)
    # A GPU would multiply by the reciprocal of a number, which rounds otherwise.
    return floats.div_(torch.full((), 255.0, device=device))


def resize(images: Tensor, settings: ResizeSettings) -> Tensor:
    """Floats resized to (B, C, side, side); not clamped; unchanged if they have that size."""
    if images.shape[-2:] == (settings.side, settings.side):
        return images
    return F.interpolate(
        images,
        size=(settings.side, settings.side),
        mode=settings.interpolation,
        align_corners=False,
        antialias=settings.antialias,
    )


def to_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] to uint8: :data:`UINT8`, as RAE and PAE write images."""
    return (255 * images.detach().float().clamp(0, 1)).to(torch.uint8)


def adm_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Center square of ``size`` px, as ADM (guided-diffusion) crops its training images.

    Halves with a box filter while the shorter side is at least ``2 size``, resizes it to ``size``
    with a bicubic filter, and crops the center. LightningDiT, RAE and PAE do the same. Of an image
    more than 64 times as long as wide, only the square is resized, so that memory is bounded.
    """
    while min(image.size) >= 2 * size:
        width, height = image.size
        image = image.resize((width // 2, height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    square = left, top, left + size, top + size
    if max(width, height) > _LONGEST * size:
        return _resize_part(image, (width, height), square)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop(square)


def _resize_part(
    image: Image.Image, sides: tuple[int, int], part: tuple[int, int, int, int]
) -> Image.Image:
    """The part (left, top, right, bottom) of the image resized to ``sides``, up to rounding."""
    x, y = image.width / sides[0], image.height / sides[1]
    left, top, right, bottom = part
    box = left * x, top * y, min(right * x, image.width), min(bottom * y, image.height)
    return image.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) float64 in dB, at most 100 (RAE's lower bound of the error).

    Args:
        a: images (B, C, H, W), uint8 or floats in [0, 1].
        b: images of the same shape.
    """
    error = (to_unit_float64(a) - to_unit_float64(b)).square().flatten(1).mean(1)  # (B,)
    return -10 * error.clamp_min(_MSE_FLOOR).log10()


def to_unit_float64(images: Tensor) -> Tensor:
    """uint8 0..255, or floats in [0, 1], to float64 in [0, 1], for exact sums of squares."""
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()
