"""SSIM against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pae_evaluators.image_quality import ssim
from pae_framework.errors import DataError


def noisy_pair(size, seed, channels=3):
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 200, size).view(1, 1, 1, size).expand(4, channels, size, size)
    a = ramp + 55 * torch.rand(4, channels, size, size, generator=generator)
    noise = torch.tensor([2.0, 10.0, 40.0, 100.0]).view(4, 1, 1, 1)
    b = a + noise * torch.randn(4, channels, size, size, generator=generator)
    return a.to(torch.uint8), b.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("size", [11, 12, 32, 48])
def test_ssim_agrees_with_scikit_image(size):
    a, b = noisy_pair(size, seed=2)
    expected = [
        structural_similarity(
            x.numpy().astype(np.float64) / 255,
            y.numpy().astype(np.float64) / 255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=0,
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-9)


def test_ssim_of_flat_images_is_the_luminance_term():
    # (2 * 0.2 * 0.6 + c1) / (0.2^2 + 0.6^2 + c1) with c1 = 0.01^2; the structure term is 1
    a, b = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
    assert ssim(a, b).item() == pytest.approx(0.2401 / 0.4001, abs=1e-6)


def test_ssim_is_one_for_identical_images_and_symmetric():
    a, b = noisy_pair(20, seed=3)
    assert ssim(a, a).tolist() == pytest.approx([1] * 4)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert ssim(a, b).tolist() == sorted(ssim(a, b).tolist(), reverse=True)  # more noise, less


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(DataError, match=r"11 x 11 px.* 8 x 8"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
