"""How alike two images are, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

_MSE_FLOOR = 1e-10  # identical images: 100 dB, a number that can be averaged


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,) float64; at most 100 (RAE's floor of the error).

    Args:
        a: images (B, C, H, W), uint8 or floats in [0, 1].
        b: images of the same shape.
    """
    error = (unit_range(a) - unit_range(b)).square().flatten(1).mean(1)
    return -10 * error.clamp_min(_MSE_FLOOR).log10()


def unit_range(images: Tensor) -> Tensor:
    """Images in [0, 1] as float64: sums of squares, and differences of them, need the digits."""
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()
