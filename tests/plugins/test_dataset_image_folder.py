"""Folders of images per class, written by the test."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pae_datasets.config import ImageFolderConfig
from pae_datasets.image_folder import ImageFolder
from pae_framework.data.images import read_images
from pae_framework.data.pixels import adm_center_crop
from pae_framework.errors import DataError


def save(path: Path, gray: int, size=(20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (gray, gray, gray)).save(path)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes whose images tell their place by their gray."""
    save(tmp_path / "train/zebra/a.png", 30)
    save(tmp_path / "train/ant/b.png", 20)
    save(tmp_path / "train/ant/deep/er/c.PNG", 25)
    save(tmp_path / "train/ant/a.jpg", 10)
    (tmp_path / "train/ant/notes.txt").write_text("no image")
    (tmp_path / "train/.cache").mkdir()
    return tmp_path


def test_classes_and_files_are_sorted_and_nested_files_count(root):
    source = ImageFolder(ImageFolderConfig(folder=str(root), split="train"), 16)

    images, labels = read_images(source)

    assert list(source.class_names) == ["ant", "zebra"]
    assert labels.tolist() == [0, 0, 0, 1]
    # a.jpg, b.png, deep/er/c.PNG, then the zebra
    assert images[:, 0, 8, 8].tolist() == [10, 20, 25, 30]
    assert source.mask(0) is None


def test_split_none_reads_the_root_itself(root):
    source = ImageFolder(ImageFolderConfig(folder=str(root / "train")), 16)

    assert len(source) == 4


def test_images_are_adm_crops(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one/noise.png")

    image = ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 32)[0].image

    expected = torch.from_numpy(np.array(adm_center_crop(Image.fromarray(pixels), 32)))
    assert torch.equal(image, expected.permute(2, 0, 1))


@pytest.mark.parametrize(("mode", "expected"), [("L", 102), ("RGBA", 102), ("P", 102)])
def test_other_color_modes_become_rgb(tmp_path, mode, expected):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (16, 16), (102, 102, 102)).convert(mode).save(tmp_path / "one/a.png")

    image = ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 16)[0].image

    assert image.shape == (3, 16, 16)
    assert image.unique().tolist() == [expected]


def test_a_truncated_jpeg_is_named_when_it_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    (tmp_path / "one").mkdir()
    path = tmp_path / "one/half.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 32)

    with pytest.raises(DataError, match=r"half\.jpg"):
        source[0]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: None, "imagenet/val"),
        (lambda root: (root / "val").mkdir(parents=True), "imagenet/val/<class>"),
        (lambda root: (root / "val/a.txt").parent.mkdir(parents=True), "imagenet/val/<image>"),
        (
            lambda root: (save(root / "val/ant/a.png", 1), (root / "val/bee").mkdir()),
            "imagenet/val/bee ",
        ),
    ],
)
def test_missing_names_what_is_missing(tmp_path, make, expected):
    root = tmp_path / "imagenet"
    make(root)
    config = ImageFolderConfig(folder=str(root), split="val")

    with pytest.raises(DataError, match=expected) as error:
        ImageFolder(config, 32)

    assert config.missing() == str(error.value)


def test_a_valid_folder_lacks_nothing(root):
    assert ImageFolderConfig(folder=str(root), split="train").missing() is None


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"images": 5}, r"train .*\b4 images\b.*`images` is 5"),
        ({"classes": 3}, r"train .*\b2 classes\b.*`classes` is 3"),
    ],
)
def test_unexpected_numbers_of_images_or_classes_are_rejected(root, stated, message):
    config = ImageFolderConfig(folder=str(root), split="train", **stated)
    with pytest.raises(DataError, match=message):
        ImageFolder(config, 32)
    # classes are folders, quickly counted before anything runs; images are not
    assert (config.missing() is not None) == ("classes" in stated)


def test_expected_numbers_are_known_before_reading(root):
    source = ImageFolder(ImageFolderConfig(folder=str(root), split="train"), 32)
    images, classes = len(source), len(source.class_names)
    config = ImageFolderConfig(folder=str(root), split="train", images=images, classes=classes)
    assert len(ImageFolder(config, 32)) == images
    assert config.expected() == (images, classes)
    assert ImageFolderConfig(folder="x", images=images).expected() is None
