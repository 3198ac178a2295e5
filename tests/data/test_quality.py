"""PSNR by hand and against scikit-image."""

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from pae_framework.data.quality import psnr


def noisy_pair(size, seed):
    generator = torch.Generator().manual_seed(seed)
    a = 255 * torch.rand(4, 3, size, size, generator=generator)
    noise = torch.tensor([2.0, 10.0, 40.0, 100.0]).view(4, 1, 1, 1)
    b = a + noise * torch.randn(4, 3, size, size, generator=generator)
    return a.to(torch.uint8), b.clamp(0, 255).to(torch.uint8)


def test_psnr_by_hand():
    a = torch.zeros(3, 3, 4, 4)
    b = torch.stack([torch.full((3, 4, 4), error) for error in (1.0, 0.1, 0.01)])
    assert psnr(a, b).tolist() == pytest.approx([0, 20, 40], abs=1e-4)


def test_psnr_of_uint8_has_data_range_255():
    a, b = noisy_pair(16, seed=0)
    expected = [
        peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=255)
        for x, y in zip(a, b, strict=True)
    ]
    assert psnr(a, b).tolist() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(psnr(a, b), psnr(a.double() / 255, b.double() / 255))


def test_psnr_of_identical_images_is_a_number():
    a, _ = noisy_pair(8, seed=1)
    assert psnr(a, a).tolist() == pytest.approx([100] * 4)
