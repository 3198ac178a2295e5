"""Generated scenes: a function of their numbers, with masks that agree with the pixels."""

import math

import numpy as np
import pytest
import torch

from pae_datasets.config import ShapesConfig
from pae_datasets.outlines import OUTLINES
from pae_datasets.shapes import Shapes
from pae_framework.data.images import read_images, read_masks


def test_an_image_depends_on_seed_split_and_index_only():
    def image(**changes):
        index = changes.pop("index", 5)
        return Shapes(ShapesConfig(**changes), 16)[index].image

    assert torch.equal(image(), image(count=6))
    assert not torch.equal(image(), image(split="test"))
    assert not torch.equal(image(), image(seed=1))
    # Same class, another scene.
    assert not torch.equal(image(), image(index=13))


def test_reading_twice_or_out_of_order_changes_nothing():
    source = Shapes(ShapesConfig(count=10), 16)
    backwards = [source[index].image for index in reversed(range(10))]

    assert torch.equal(read_images(source)[0], torch.stack(backwards[::-1]))


def test_classes_alternate():
    source = Shapes(ShapesConfig(count=20), 16)

    assert read_images(source)[1].tolist() == [index % 8 for index in range(20)]
    assert len(source.class_names) == 8


def test_the_number_of_images_is_count():
    source = Shapes(ShapesConfig(count=3), 16)

    assert len(list(source)) == 3
    with pytest.raises(IndexError):
        source[3]


def test_a_scene_is_the_same_at_every_size():
    large = read_images(Shapes(ShapesConfig(count=8), 128))[0].float()
    small = read_images(Shapes(ShapesConfig(count=8), 32))[0].float()

    # Means over 4 x 4 px differ from the small picture only along outlines.
    means = torch.nn.functional.avg_pool2d(large, 4)
    assert (means - small).abs().mean() < 3


def test_the_large_shape_is_segment_1_before_the_small_ones():
    masks = read_masks(Shapes(ShapesConfig(count=40, objects=4), 32))

    assert masks.dtype == torch.int64
    assert set(masks.unique().tolist()) == {0, 1, 2, 3, 4}
    large = (masks == 1).sum((1, 2))
    small = torch.stack([(masks == k).sum((1, 2)) for k in (2, 3, 4)])
    # At 32 px the smallest large shape (a cross of radius 0.5) covers about 80 px.
    assert large.min() > 60
    assert (small < large).all()


def test_pixels_change_at_mask_edges_but_not_inside():
    # Inside a segment colors drift slowly; across its edge they jump.
    source = Shapes(ShapesConfig(count=40, objects=1), 64)
    images, masks = read_images(source)[0].float(), read_masks(source)
    step = (images[..., 2:] - images[..., :-2]).abs().amax(dim=1)
    edge = masks[..., 2:] != masks[..., :-2]

    assert step[edge].mean() > 5 * step[~edge].mean()
    assert step[~edge].quantile(0.99) < step[edge].mean()


def test_a_single_shape_has_one_segment_with_the_area_of_its_kind():
    masks = read_masks(Shapes(ShapesConfig(count=80, objects=1), 128))
    areas = (masks == 1).float().mean((1, 2)) * 4  # the frame spans [-1, 1]
    circles = areas[0::8]

    # A disc of radius 0.9 r, r from 0.5 to 0.66, lies inside the frame or is cut by little.
    assert circles.min() > 0.9 * math.pi * (0.9 * 0.5) ** 2
    assert circles.max() < 1.02 * math.pi * (0.9 * 0.66) ** 2


AREAS = {
    "circle": math.pi * 0.9**2,
    "ring": math.pi * (0.95**2 - 0.5**2),
    "square": 1.56**2,
    "diamond": 2 * 0.68 * 1.02,
    "triangle": 3 * math.sqrt(3) / 4 * 1.05**2,
    "cross": 2 * (1.84 * 0.6) - 0.6**2,
    "star": 10 * 0.5 * 1.05 * 0.45 * math.sin(math.pi / 5),
    "hexagon": 3 * math.sqrt(3) / 2 * 0.95**2,
}


@pytest.mark.parametrize("kind", sorted(OUTLINES))
def test_outlines_enclose_the_exact_area(kind):
    axis = (np.arange(1000) + 0.5) * 2.4 / 1000 - 1.2
    x, y = np.meshgrid(axis, axis)

    area = (OUTLINES[kind](x, y) < 0).sum() * (2.4 / 1000) ** 2

    assert area == pytest.approx(AREAS[kind], rel=2e-3)


@pytest.mark.parametrize("kind", sorted(OUTLINES))
def test_distances_have_slope_at_most_1(kind):
    axis = (np.arange(400) + 0.5) * 2.4 / 400 - 1.2
    distance = OUTLINES[kind](*np.meshgrid(axis, axis))

    assert np.abs(np.diff(distance, axis=1)).max() < 1.001 * 2.4 / 400
    # and near the outline they grow just as fast, which is what antialiasing counts on
    slope = np.hypot(*np.gradient(distance, 2.4 / 400))
    assert np.median(slope[np.abs(distance) < 0.05]) == pytest.approx(1, abs=0.01)
