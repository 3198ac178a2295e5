"""SSIM of image pairs, one value per image."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.data.pixels import to_unit_float64
from pae_framework.errors import DataError

WINDOW = 11
SIGMA = 1.5


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), (B,) float64, mean over channels and positions.

    Gaussian window of 11 px with sigma 1.5, data range 1, biased covariances, and only positions
    whose window lies inside the image: ``structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`` of scikit-image.

    Args:
        a: images (B, C, H, W), uint8 or floats in [0, 1], at least 11 px on each side.
        b: images of the same shape.

    Raises:
        DataError: the images are smaller than the window.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise DataError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} px; "
            f"the images have {a.shape[-2]} x {a.shape[-1]}"
        )
    x, y = to_unit_float64(a), to_unit_float64(b)  # (B, C, H, W)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x.square()
    variance_y = _blur(y * y) - mean_y.square()
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).flatten(1).mean(1)


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean around each position whose window lies inside the image."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = (-offsets.square() / (2 * SIGMA**2)).exp()
    for axis in (2, 3):
        length = x.shape[axis] - WINDOW + 1
        blurred = torch.zeros_like(x.narrow(axis, 0, length))
        for start, weight in enumerate((bell / bell.sum()).tolist()):
            blurred += weight * x.narrow(axis, start, length)
        x = blurred
    return x
