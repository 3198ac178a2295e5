"""Images as networks trained on ImageNet take them."""

from __future__ import annotations

from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's channel means and deviations, of values in [0, 1]."""


def standardised(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] less the means, over the deviations."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std
