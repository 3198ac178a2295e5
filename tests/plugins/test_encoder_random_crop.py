"""Random crops: what they cut, by hand."""

import torch

from pae_encoders.random_crop import random_crop


def gradient(count: int, size: int = 16) -> torch.Tensor:
    """The red of a pixel is its column's center in [-1, 1], the green its row's."""
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    columns, rows = axis.expand(size, size), axis[:, None].expand(size, size)
    return torch.stack([columns, rows, torch.zeros(size, size)]).expand(count, -1, -1, -1)


def test_a_smallest_side_of_one_changes_nothing():
    images = gradient(2)

    assert random_crop(images, 1.0, torch.Generator().manual_seed(0)) is images


def test_crops_are_squares_inside_the_image_of_the_sides_asked_for():
    crops = random_crop(gradient(500), 0.6, torch.Generator().manual_seed(0))
    # A crop of side s shows a slope s times as steep; away from the rim nothing is cut.
    sides = (crops[:, 0, 8, 11] - crops[:, 0, 8, 4]) / (7 * 2 / 16)
    heights = (crops[:, 1, 11, 8] - crops[:, 1, 4, 8]) / (7 * 2 / 16)
    centers = (crops[:, 0, 8, 7] + crops[:, 0, 8, 8]) / 2

    assert torch.allclose(sides, heights, atol=1e-4)
    assert 0.6 <= sides.min() < 0.62
    assert 0.98 < sides.max() <= 1 + 1e-4
    assert (centers.abs() <= 1 - sides + 1e-4).all()
    assert centers.std() > 0.05


def test_the_same_generator_cuts_the_same():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    one, two = (random_crop(images, 0.5, torch.Generator().manual_seed(4)) for _ in range(2))

    assert torch.equal(one, two)
