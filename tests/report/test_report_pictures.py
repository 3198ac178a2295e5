"""Geometry of grids, comparisons and rows by class; PNG files."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pae_framework.errors import DataError
from pae_framework.report.pictures import (
    class_rows,
    compare,
    grid,
    png_bytes,
    save_png,
    to_picture,
    visible_scale,
)


def flat_images(*values, side=2):
    """Images of one gray value each."""
    return torch.stack([torch.full((3, side, side), value, dtype=torch.uint8) for value in values])


def pixels(picture):
    return np.asarray(picture)


def test_grid_geometry_by_hand():
    picture = pixels(grid(flat_images(10, 20, 30), columns=2, scale=3, gap=2))
    # two columns of 2 px * 3 with a gap of 2: 14 px; two rows the same
    assert picture.shape == (14, 14, 4)
    assert (picture[:6, :6] == [10, 10, 10, 255]).all()
    assert (picture[:6, 8:] == [20, 20, 20, 255]).all()
    assert (picture[8:, :6] == [30, 30, 30, 255]).all()
    assert (picture[6:8, :, 3] == 0).all()
    assert (picture[8:, 8:, 3] == 0).all()


def test_each_pixel_becomes_a_square_of_the_scale():
    image = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    picture = pixels(grid(image, columns=1, scale=2))[..., :3]
    assert (picture[0:2, 2:4] == [1, 5, 9]).all()
    assert (picture[2:4, 0:2] == [2, 6, 10]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 3))
def test_every_image_can_be_cut_out_of_the_grid_again(count, columns, scale):
    images = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8)
    picture = pixels(grid(images, columns, scale, gap=1))
    used, step = min(columns, count), 4 * scale + 1
    for i, image in enumerate(images):
        top, left = i // used * step, i % used * step
        cut = picture[top : top + 4 * scale : scale, left : left + 4 * scale : scale, :3]
        assert (cut == image.permute(1, 2, 0).numpy()).all()


def test_small_images_are_enlarged_to_be_seen_and_large_ones_left():
    assert [visible_scale(side) for side in (8, 16, 32, 64, 256)] == [8, 4, 2, 1, 1]


def test_reconstructions_stand_below_their_originals():
    picture = pixels(compare(flat_images(1, 2, 3), flat_images(101, 102, 103), columns=2, scale=1))
    # a band is two rows of 2 px and a gap of 2: 6 px; two bands with 8 px between
    assert picture.shape == (20, 6, 4)
    assert picture[0, 0, 0] == 1
    assert picture[4, 0, 0] == 101
    assert picture[0, 4, 0] == 2
    assert picture[4, 4, 0] == 102
    assert picture[14, 0, 0] == 3
    assert picture[18, 0, 0] == 103
    assert (picture[6:14, :, 3] == 0).all()


def test_rows_by_class_take_the_first_of_each_class_and_skip_empty_classes():
    labels = torch.tensor([2, 0, 2, 2, 0])
    rows = class_rows(labels, ["ant", "bee", "cat"], per_class=2, classes=3)
    assert [(name, indices.tolist()) for name, indices in rows] == [
        ("ant", [1, 4]),
        ("cat", [0, 2]),
    ]


def test_a_label_without_a_name_and_a_limit_on_classes():
    rows = class_rows(torch.arange(10), ["ant"], per_class=1, classes=5)
    assert [name for name, _ in rows] == ["ant", "class 2", "class 4", "class 6", "class 8"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), "no image"),
        (torch.zeros(2, 3, 4, 4), r"uint8.*float32 \(2, 3, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), r"uint8 \(2, 1, 4, 4\)"),
    ],
)
def test_anything_but_uint8_images_is_an_error(images, message):
    with pytest.raises(DataError, match=message):
        grid(images, columns=2)


def test_pairs_must_have_one_shape():
    with pytest.raises(DataError, match=r"\(2, 3, 2, 2\).*\(1, 3, 2, 2\)"):
        compare(flat_images(1, 2), flat_images(1))


def test_a_png_holds_exactly_these_pixels(tmp_path):
    image = torch.randint(256, (3, 5, 5), dtype=torch.uint8)
    path = tmp_path / "new" / "picture.png"
    save_png(to_picture(image), path)
    assert (pixels(Image.open(path)) == image.permute(1, 2, 0).numpy()).all()
    assert path.read_bytes() == png_bytes(Image.open(io.BytesIO(path.read_bytes())))


def test_a_png_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="PNG"):
        save_png(Image.new("F", (2, 2)), path)  # PNG has no floats
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
