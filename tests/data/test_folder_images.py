"""Folders of images: which files, in which order, and of which size."""

import os

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from pae_framework.data.image_set import FolderImages
from pae_framework.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    return root


def write(path, value=0, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((size[1], size[0], 3), value, np.uint8)
    Image.fromarray(array).convert(mode).save(path)


def test_images_below_the_folder_in_natural_order(folder):
    for name in ("10.png", "9.png", "b/1.png", "a/2.webp", "a/10.png", "100.jpg"):
        write(folder / name, value=int(name.partition(".")[0].rpartition("/")[2]))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    images = FolderImages(folder)
    levels = images.read(range(len(images)))[:, 0, 0, 0]
    assert levels.tolist() == pytest.approx([9, 10, 100, 2, 10, 1], abs=1)
    assert images.left_out == 2
    assert images.formats == "4 png, 1 jpg, 1 webp"
    assert (images.size, images.crop) == ((6, 8), "none")


def test_gray_images_are_read_as_rgb(folder):
    write(folder / "a.png", value=77, mode="L")
    assert torch.equal(FolderImages(folder).read([0]), torch.full((1, 3, 6, 8), 77).byte())


def test_different_sizes_are_refused_before_anything_is_read_and_can_be_cropped(folder):
    write(folder / "a.png")
    write(folder / "b.png", size=(9, 9))
    with pytest.raises(DataError, match=r"a\.png: 6 x 8, b\.png: 9 x 9 px.*--size"):
        FolderImages(folder)
    cropped = FolderImages(folder, side=4)
    assert cropped.read([0, 1]).shape == (2, 3, 4, 4)
    assert cropped.crop == "ADM center crop to 4 px"


@pytest.mark.parametrize("content", ["nothing", "text"])
def test_a_folder_without_images(folder, content):
    if content == "text":
        (folder / "a.txt").write_text("")
    with pytest.raises(DataError, match="no image"):
        FolderImages(folder)


def test_a_damaged_image_is_named(folder):
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"b\.png"):
        FolderImages(folder).read([0, 1])


def test_images_that_exif_turns_have_the_sides_that_are_shown(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (16, 8)).save(folder / "a.jpg", exif=exif)
    Image.new("RGB", (8, 16)).save(folder / "b.jpg")
    images = FolderImages(folder)
    assert images.size == (16, 8)
    assert images.read([0, 1]).shape == (2, 3, 16, 8)


def test_links_to_folders_are_refused(folder, tmp_path):
    write(folder / "a.png", 1)
    (tmp_path / "elsewhere").mkdir()
    (folder / "class").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"class is a link"):
        FolderImages(folder)


def test_the_identity_depends_on_contents_and_order(folder):
    write(folder / "a.png", 1)
    write(folder / "b.png", 2)
    first = FolderImages(folder).identity()
    assert FolderImages(folder).identity() == first
    moved = folder.rename(folder.with_name("moved"))
    assert FolderImages(moved).identity() == first
    os.rename(moved / "a.png", moved / "c.png")  # noqa: PTH104
    assert FolderImages(moved).identity() != first
    write(moved / "c.png", 3)
    assert FolderImages(moved).identity() != first
