"""What images go through before RAE's discriminator sees them."""

from __future__ import annotations

import pytest
import torch

from pae_discriminators.augment import augmented, scaled_about, translated


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_translation_moves_right_and_down_and_leaves_gray() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4).expand(2, 3, 4, 4)
    # an eighth of 4 px is half a pixel, which rounds to none: enlarge by whole pixels
    images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = translated(images, torch.tensor([1, 0]), torch.tensor([0, -1]))
    assert torch.equal(found[0, :, :, 1:], images[0, :, :, :-1])
    assert (found[0, :, :, 0] == 0.5).all()
    assert torch.equal(found[1, :, :-1], images[1, :, 1:])
    assert (found[1, :, -1] == 0.5).all()


def test_scaling_about_a_center() -> None:
    images = torch.tensor([0.25, 1.0]).view(1, 1, 1, 2)
    found = scaled_about(images, torch.tensor(0.5), torch.tensor([2.0]))
    assert found.flatten().tolist() == [0.0, 1.5]


def test_moves_are_of_all_sizes_up_to_an_eighth() -> None:
    """A white point on black: where it comes to lie, in units of the range."""
    images = torch.zeros(4000, 3, 32, 32)
    images[:, :, 16, 16] = 1
    spread = augmented(images, generator()).mean(1).flatten(1).argmax(1)
    rows, columns = spread // 32 - 16, spread % 32 - 16
    clear = (rows.abs() <= 4) & (columns.abs() <= 4)  # else the gray border outshines the point
    for moves in (rows[clear], columns[clear]):
        counts = torch.bincount(moves + 4, minlength=9)
        assert len(counts) == 9
        assert (counts > 0.07 * len(moves)).all()  # 1/9 each


def test_brightness_adds_up_to_a_quarter_either_way() -> None:
    """A gray image of 0.5 is left as it is by all else: its own mean, its own color, its border.

    What is left is brightness, U(-0.25, 0.25): mean 0, deviation 0.5 / sqrt(12).
    """
    found = augmented(torch.full((4000, 3, 8, 8), 0.5), generator()) - 0.5
    assert found.flatten(1).std(1).max() < 1e-6
    moves = found[:, 0, 0, 0]
    assert moves.abs().max() <= 0.25
    assert moves.mean().item() == pytest.approx(0, abs=0.01)
    assert moves.std().item() == pytest.approx(0.5 / 12**0.5, rel=0.03)


def test_saturation_and_contrast_scale_color_and_light() -> None:
    """Left half black, right half red: 4 px of 32 at most come in at the border.

    Color (red - green) is scaled by saturation times contrast, U(0, 2) U(0.5, 1.5); light by
    contrast alone.
    """
    images = torch.zeros(4000, 3, 32, 32)
    images[:, 0, :, 16:] = 0.6
    found = augmented(images, generator())
    red, black = found[:, :, 16, 26], found[:, :, 16, 6]
    light = (red.mean(1) - black.mean(1)) / 0.2
    color = (red[:, 0] - red[:, 1]) / 0.6
    saturation = color / light
    assert light.min() >= 0.5 - 1e-5
    assert light.max() <= 1.5 + 1e-5
    assert light.mean().item() == pytest.approx(1.0, abs=0.02)
    assert light.std().item() == pytest.approx(1 / 12**0.5, rel=0.03)
    assert saturation.min() >= -1e-5
    assert saturation.max() <= 2 + 1e-5
    assert saturation.mean().item() == pytest.approx(1.0, abs=0.03)
    assert saturation.std().item() == pytest.approx(2 / 12**0.5, rel=0.03)


def test_contrast_keeps_the_mean_of_an_image() -> None:
    """All but brightness keeps the mean where nothing leaves the image: means move by U(+-0.25)."""
    images = torch.rand(500, 3, 3, 3, generator=generator(1))  # an eighth of 3 px rounds to none
    found = augmented(images, generator())
    moves = found.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert moves.abs().max() <= 0.25 + 1e-6
    assert moves.std().item() == pytest.approx(0.5 / 12**0.5, rel=0.1)


def test_is_the_generators_alone_and_lets_gradients_through() -> None:
    images = torch.rand(2, 3, 16, 16).requires_grad_()
    first = augmented(images, generator(1))
    torch.rand(3)
    assert torch.equal(augmented(images, generator(1)), first)
    assert not torch.equal(augmented(images, generator(2)), first)
    first.square().sum().backward()
    assert images.grad is not None
    assert images.grad.any()


def test_is_float32_whatever_comes_in() -> None:
    assert augmented(torch.rand(1, 3, 8, 8).bfloat16(), generator()).dtype == torch.float32
