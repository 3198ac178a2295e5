"""The rows of pictures: what is below what, how differences are scaled, what captions state."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pae_framework.report import gallery
from pae_framework.report.content import Clusters, LabeledImages, Nearest, Rotations


def flat_images(*values, side=4):
    """Images of one gray value each."""
    return torch.stack([torch.full((3, side, side), value, dtype=torch.uint8) for value in values])


def pixels(uri):
    kind, _, encoded = uri.partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def grays(tiles):
    return [[int(pixels(uri)[1][0, 0, 0]) for uri in column] for column in tiles.columns]


def test_differences_are_absolute_and_scaled_as_far_as_they_fit():
    differences, factor = gallery.scaled_differences(flat_images(10, 50), flat_images(40, 30))
    # 30 and 20: times 8 is 240, times 16 would be 480
    assert factor == 8
    assert differences[:, 0, 0, 0].tolist() == [240, 160]


@pytest.mark.parametrize(("difference", "factor"), [(0, 16), (15, 16), (16, 8), (128, 1), (255, 1)])
def test_factors_of_differences(difference, factor):
    found = gallery.scaled_differences(flat_images(0), flat_images(difference))
    assert found[1] == factor
    assert found[0].unique().tolist() == [difference * factor]


def test_one_pixel_in_a_hundred_may_be_cut():
    other = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    other[0, :, 0, :4] = 255
    other[0, :, 1:] = 10
    differences, factor = gallery.scaled_differences(torch.zeros_like(other), other)
    assert factor == 16
    assert differences[0, 0, :2, 0].tolist() == [255, 160]


def test_reconstructions_stand_between_originals_and_differences():
    tiles = gallery.reconstructions(flat_images(10, 50), flat_images(40, 30))
    assert grays(tiles) == [[10, 40, 240], [50, 30, 160]]
    assert "times 8" in tiles.caption


def test_exact_reconstructions_have_black_differences():
    tiles = gallery.reconstructions(flat_images(10), flat_images(10))
    assert grays(tiles) == [[10, 10, 0]]


def test_the_same_images_are_shown_in_every_set_that_has_them():
    labels = torch.tensor([1, 0, 1])
    sets = [
        LabeledImages("step 1", flat_images(10, 11, 12), labels),
        LabeledImages("too small", flat_images(9), labels[:1]),
        LabeledImages("step 2", flat_images(20, 21, 22), labels),
    ]
    strips = gallery.same_noise(sets, ["ant", "bee"], "training")
    # the first image of ant is number 1, that of bee number 0
    assert [(label, grays(tiles)) for label, tiles in strips] == [
        ("step 1", [[11], [10]]),
        ("step 2", [[21], [20]]),
    ]
    (_, one), (_, other) = gallery.same_noise(sets[:2], ["ant", "bee"], "training")
    assert (grays(one), grays(other)) == ([[10]], [[9]])
    assert gallery.same_noise(sets[:1], ["ant", "bee"], "training") == []
    assert gallery.same_noise([], [], "training") == []


def test_nearest_images_stand_below_their_sample_and_the_caption_says_of_how_many():
    found = Nearest(flat_images(1, 2), flat_images(3, 4, 5, 6).view(2, 2, 3, 4, 4), "m", 50, 70)
    tiles = gallery.nearest(found)
    assert grays(tiles) == [[1, 3, 4], [2, 5, 6]]
    for words in ("2 nearest of 50 training images", "at random of 70", "by the m"):
        assert words in tiles.caption
    everything = Nearest(found.samples, found.nearest, "m", 70, 70)
    assert "random" not in gallery.nearest(everything).caption


def test_equal_clusters_have_equal_colors_in_all_images_of_a_row():
    maps = torch.tensor([[[0, 1], [1, 0]], [[1, 1], [2, 0]]])
    masks = torch.tensor([[[5, 900], [5, 5]], [[900, 5], [5, 5]]])
    tiles = gallery.clusters(Clusters(flat_images(1, 2), {"latents": maps}, masks))
    (_, first, mask), (_, second, other_mask) = [
        [pixels(uri)[1] for uri in column] for column in tiles.columns
    ]
    assert (first[0, 1] == second[0, 0]).all()
    assert (first[0, 0] == second[1, 1]).all()
    assert len({tuple(color) for color in second.reshape(-1, 3)}) == 3
    assert (mask[0, 1] == other_mask[0, 0]).all()
    assert (mask[0, 0] != mask[0, 1]).any()
    assert "mask" in tiles.caption
    assert "3 clusters" in tiles.caption


def test_a_row_of_decoded_images_per_angle():
    rows = gallery.rotations(Rotations((0, 22.5), flat_images(1, 2, 3, 4).view(2, 2, 3, 4, 4)))
    assert [(label, grays(tiles)) for label, tiles in rows] == [
        ("0°", [[1], [2]]),
        ("22.5°", [[3], [4]]),
    ]


def test_small_images_are_exact_and_photographs_are_small_webp():
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(256, (1, 3, 64, 64), generator=generator, dtype=torch.uint8)
    kind, found = pixels(gallery.tiles("", small).columns[0][0])
    assert kind == "data:image/png"
    assert (found == small[0].permute(1, 2, 0).numpy()).all()
    large = small.repeat_interleave(8, 2).repeat_interleave(8, 3)
    kind, found = pixels(gallery.tiles("", large).columns[0][0])
    assert kind == "data:image/webp"
    assert found.shape == (256, 256, 3)


@pytest.mark.parametrize(
    "section",
    [
        lambda: gallery.samples(None, []),
        lambda: gallery.reconstructions(None, None),
        lambda: gallery.latents(None, None),
        lambda: gallery.nearest(None),
        lambda: gallery.nearest(Nearest(flat_images(1), torch.zeros(1, 0, 3, 4, 4), "m", 0, 0)),
        lambda: gallery.clusters(None),
        lambda: gallery.rotations(None),
    ],
)
def test_nothing_to_show(section):
    assert not section()
