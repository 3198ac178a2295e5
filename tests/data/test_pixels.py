"""Pixel conversions, ADM's center crop by hand, and PSNR by hand and against scikit-image."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from pae_framework.data import pixels
from pae_framework.data.pixels import (
    adm_center_crop,
    adm_center_crop_labels,
    psnr,
    to_float,
    to_uint8,
)


def test_every_gray_level_survives_conversion_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8)

    assert torch.equal(to_uint8(to_float(levels)), levels)


def test_to_uint8_truncates_and_clamps():
    # 255 * 0.5 = 127.5 and 255 * 0.999 = 254.745: cut, not rounded.
    values = torch.tensor([-0.3, 0.0, 0.5, 0.999, 1.0, 1.7])

    assert to_uint8(values).tolist() == [0, 0, 127, 254, 255, 255]


def test_to_float_spans_zero_to_one():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [0, 0.2, 1]
    )


def ramp(width: int, height: int) -> Image.Image:
    """Red holds the column and green the row, so that a crop tells where it was taken."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)[None, :]
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def test_an_image_of_the_right_shorter_side_is_only_cropped():
    # 41 x 32 to 32: scale 1; left = (41 - 32) // 2 = 4, top = 0.
    cropped = np.asarray(adm_center_crop(ramp(41, 32), 32))

    assert cropped[..., 0].tolist() == [list(range(4, 36))] * 32
    assert cropped[:, 0, 1].tolist() == list(range(32))


def test_a_box_halving_averages_pairs_before_the_crop():
    # 80 x 64 to 32: 64 >= 2 * 32, so one halving to 40 x 32 (still 32 < 64), scale 1, left = 4.
    # Halved column k is the mean of 2k and 2k + 1, 2k + 0.5, which Pillow rounds up.
    cropped = np.asarray(adm_center_crop(ramp(80, 64), 32))

    assert cropped[0, :, 0].tolist() == [2 * k + 1 for k in range(4, 36)]


@pytest.mark.parametrize(
    ("size_in", "size", "halvings", "resized", "offset"),
    [
        # 500 x 375 to 256: 375 < 512; 256/375 * 500 = 341.33 -> 341; (341 - 256) // 2 = 42
        ((500, 375), 256, [], (341, 256), (42, 0)),
        # 1024 x 768: 768 >= 512 -> 512 x 384; 384 < 512; 256/384 * 512 = 341.33; 42
        ((1024, 768), 256, [(512, 384)], (341, 256), (42, 0)),
        # 301 x 1203 to 64: -> 150 x 601 (integer division) -> 75 x 300; 64/75 * 300 = 256; 96
        ((301, 1203), 64, [(150, 601), (75, 300)], (64, 256), (0, 96)),
        # 20 x 31 to 64 is enlarged: 64/20 * 31 = 99.2 -> 99; (99 - 64) // 2 = 17
        ((20, 31), 64, [], (64, 99), (0, 17)),
    ],
)
def test_the_steps_of_the_crop_by_hand(size_in, size, halvings, resized, offset):
    noise = np.random.default_rng(0).integers(0, 256, (size_in[1], size_in[0], 3), np.uint8)
    expected = Image.fromarray(noise)
    for sides in halvings:
        expected = expected.resize(sides, Image.Resampling.BOX)
    expected = expected.resize(resized, Image.Resampling.BICUBIC)
    left, top = offset
    expected = np.asarray(expected)[top : top + size, left : left + size]

    cropped = adm_center_crop(Image.fromarray(noise), size)

    assert cropped.size == (size, size)
    assert np.array_equal(np.asarray(cropped), expected)


@pytest.mark.parametrize("sides", [(2000, 20), (20, 2000), (1500, 7), (7, 1501), (9000, 41)])
def test_only_the_square_of_a_very_long_image_is_resized(sides, monkeypatch):
    # Levels far from 0 and 255, where the two passes of a resize would clip.
    noise = np.random.default_rng(0).integers(80, 176, (sides[1], sides[0], 3), np.uint8)
    image, size = Image.fromarray(noise), 32
    with monkeypatch.context() as unlimited:
        unlimited.setattr(pixels, "_LONGEST", 10_000)
        expected = np.asarray(adm_center_crop(image, size)).astype(int)
    monkeypatch.setattr(Image.Image, "crop", lambda *a: pytest.fail("resized the whole image"))
    cropped = np.asarray(adm_center_crop(image, size)).astype(int)
    # The same filter at the same places; each pass may round differently.
    assert np.abs(cropped - expected).max() <= 2


def noisy_pair(size, seed):
    generator = torch.Generator().manual_seed(seed)
    a = 255 * torch.rand(4, 3, size, size, generator=generator)
    noise = torch.tensor([2.0, 10.0, 40.0, 100.0]).view(4, 1, 1, 1)
    b = a + noise * torch.randn(4, 3, size, size, generator=generator)
    return a.to(torch.uint8), b.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("size_in", "size", "resized", "offset"),
    [
        # Sides and offsets as in the steps of the crop above.
        ((500, 375), 256, (341, 256), (42, 0)),
        ((1024, 768), 256, (341, 256), (42, 0)),
        ((301, 1203), 64, (64, 256), (0, 96)),
        ((20, 31), 64, (64, 99), (0, 17)),
    ],
)
def test_labels_are_the_nearest_ones_of_the_same_crop(size_in, size, resized, offset):
    width, height = size_in
    places = np.stack(np.mgrid[:height, :width], -1)  # each label is its place (y, x)
    cropped = adm_center_crop_labels(places, size)
    assert cropped.shape == (size, size, 2)
    for axis, before, after, first in (
        (0, height, resized[1], offset[1]),
        (1, width, resized[0], offset[0]),
    ):
        line = cropped[:, 0, 0] if axis == 0 else cropped[0, :, 1]
        centers = (first + np.arange(size) + 0.5) * before / after
        assert line.tolist() == np.floor(centers).tolist()


def test_labels_of_the_right_size_stay():
    labels = np.random.default_rng(0).integers(0, 1000, (32, 32))
    assert (adm_center_crop_labels(labels, 32) == labels).all()


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


def test_psnr_of_identical_images_is_finite():
    a, _ = noisy_pair(8, seed=1)
    assert psnr(a, a).tolist() == pytest.approx([100] * 4)
