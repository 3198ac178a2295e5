"""Pixels: conversion between uint8 and float, ADM's crop, and PSNR.

Shapes: images (B, C, H, W).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pae_framework.data.data_settings import ResizeSettings

_LONGEST = 64
"""Sides up to this multiple of the crop are resized before they are cropped, as ADM does."""
UINT8 = "trunc(255 * clamp(x, 0, 1))"
"""How :func:`to_uint8` rounds, for protocols."""
PSNR_LIMIT = 100
"""PSNR in dB of equal images, so that means are finite: RAE's lower bound of the error, 1e-10."""


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
        image = image.resize(_halved(image.size), Image.Resampling.BOX)
    width, height = _resized(image.size, size)
    left, top = (width - size) // 2, (height - size) // 2
    square = left, top, left + size, top + size
    if max(width, height) > _LONGEST * size:
        return _resize_part(image, (width, height), square)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop(square)


def adm_center_crop_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """The same crop of labels (H, W, ...), as (size, size, ...): the nearest ones, not means."""
    height, width = labels.shape[:2]
    sides = width, height
    while min(sides) >= 2 * size:
        sides = _halved(sides)
    columns, rows = (
        _nearest(before, after, size)
        for before, after in zip((width, height), _resized(sides, size), strict=True)
    )
    return labels[rows][:, columns]


def _halved(sides: tuple[int, int]) -> tuple[int, int]:
    return sides[0] // 2, sides[1] // 2


def _resized(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """Sides of the image whose shorter side is ``size``."""
    scale = size / min(sides)
    return round(sides[0] * scale), round(sides[1] * scale)


def _nearest(before: int, after: int, size: int) -> np.ndarray:
    """Places, along a side of ``before`` px, of the middle ``size`` of ``after`` px."""
    places = (after - size) // 2 + np.arange(size)
    return (2 * places + 1) * before // (2 * after)


def _resize_part(
    image: Image.Image, sides: tuple[int, int], part: tuple[int, int, int, int]
) -> Image.Image:
    """The part (left, top, right, bottom) of the image resized to ``sides``, up to rounding."""
    x, y = image.width / sides[0], image.height / sides[1]
    left, top, right, bottom = part
    box = left * x, top * y, min(right * x, image.width), min(bottom * y, image.height)
    return image.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) float64 in dB, at most :data:`PSNR_LIMIT`.

    Args:
        a: images (B, C, H, W), uint8 or floats in [0, 1].
        b: images of the same shape.
    """
    return decibels(squared_error(a, b))


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error (B,) float64 of images like those of :func:`psnr`, with data range 1."""
    return (to_unit_float64(a) - to_unit_float64(b)).square().flatten(1).mean(1)


def decibels(error: Tensor) -> Tensor:
    """PSNR in dB of mean squared errors with data range 1, at most :data:`PSNR_LIMIT`."""
    return -10 * error.clamp_min(10 ** (-PSNR_LIMIT / 10)).log10()


def to_unit_float64(images: Tensor) -> Tensor:
    """uint8 0..255, or floats in [0, 1], to float64 in [0, 1], for exact sums of squares."""
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()
