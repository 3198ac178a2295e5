"""Masks of an ``image_folder``: PNG files of any mode, cropped like their images."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pae_datasets.config import ImageFolderConfig
from pae_datasets.image_folder import ImageFolder
from pae_framework.config import DataSourceConfig
from pae_framework.errors import DataError
from pae_framework.testing.data_sources import check_data_source

SIZE = 16
LABELS = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)


def save_image(path: Path, size=(SIZE, SIZE)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 90, 90)).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """An image of class ``ant``, with an empty folder for its mask."""
    save_image(tmp_path / "images/ant/deep/a.jpg")
    (tmp_path / "masks/ant/deep").mkdir(parents=True)
    return tmp_path


def config_of(folder: Path, **parameters) -> ImageFolderConfig:
    return ImageFolderConfig(
        folder=str(folder / "images"), masks=str(folder / "masks"), **parameters
    )


def mask_of(folder: Path) -> torch.Tensor:
    return ImageFolder(config_of(folder), SIZE).mask(0)


def indexed(labels):
    image = Image.fromarray(labels.astype(np.uint8), "L").convert("P")
    image.putdata(labels.flatten().tolist())
    # Equal colors for different labels: the indices count.
    image.putpalette([7, 7, 7] * 256)
    return image


def gray_alpha(labels):
    alpha = Image.new("L", (SIZE, SIZE), 128)
    return Image.merge("LA", [Image.fromarray(labels.astype(np.uint8)), alpha])


def colors(labels):
    """R + 256 G + 65536 B, as in COCO's panoptic PNGs."""
    channels = [labels % 256, labels // 256 % 256, labels // 65536]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def transparent(labels):
    image = colors(labels).convert("RGBA")
    image.putalpha(0)
    return image


@pytest.mark.parametrize(
    ("labels", "picture"),
    [
        (LABELS % 2, lambda labels: Image.fromarray(labels.astype(bool))),
        (LABELS, lambda labels: Image.fromarray(labels.astype(np.uint8))),
        (LABELS, gray_alpha),
        (LABELS, indexed),
        (LABELS * 257, lambda labels: Image.fromarray(labels.astype(np.uint16))),
        (LABELS * 65_793, colors),
        (LABELS * 65_793, transparent),
    ],
    ids=["bits", "gray", "gray and alpha", "indexed", "16 bits", "color", "transparent"],
)
def test_labels_are_the_numbers_in_the_file(folder, labels, picture):
    picture(labels).save(folder / "masks/ant/deep/a.png")
    mask = mask_of(folder)
    assert mask.dtype == torch.int64
    assert mask.tolist() == labels.tolist()


def test_a_panoptic_id_of_coco_by_hand(folder):
    Image.new("RGB", (SIZE, SIZE), (12, 61, 49)).save(folder / "masks/ant/deep/a.png")
    assert mask_of(folder).unique().tolist() == [12 + 61 * 256 + 49 * 65536]


def test_palettes_of_few_colors(folder):
    picture = Image.new("P", (SIZE, SIZE), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.paste(2, (0, 0, SIZE, 8))
    picture.save(folder / "masks/ant/deep/a.png", bits=2, transparency=0)
    assert mask_of(folder)[:, 0].tolist() == [2] * 8 + [0] * 8


def test_masks_are_cropped_like_their_images(tmp_path):
    # What is white in the image is segment 1, but for the pixels that the edge crosses.
    pixels = np.zeros((150, 201, 3), np.uint8)
    pixels[40:, 90:] = 255
    for name, array in (("images/ant/a.png", pixels), ("masks/ant/a.png", pixels[..., 0] // 255)):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / name)
    source = ImageFolder(config_of(tmp_path), 32)
    image, mask = source[0].image[0].float() / 255, source.mask(0)
    assert ((image - mask).abs() < 0.5).all()
    assert 0 < mask.float().mean() < 1


def test_a_source_with_masks_keeps_the_contract(folder):
    colors(LABELS).save(folder / "masks/ant/deep/a.png")
    check_data_source(ImageFolder(config_of(folder), SIZE))
    check_data_source(ImageFolder(ImageFolderConfig(folder=str(folder / "images")), SIZE))


def test_masks_are_only_promised_if_they_are_set(folder):
    assert config_of(folder).has_masks()
    without = ImageFolderConfig(folder=str(folder / "images"))
    assert not without.has_masks()
    assert ImageFolder(without, SIZE).mask(0) is None
    assert not DataSourceConfig().has_masks()


# --- what is wrong before anything runs -----------------------------------------------------------


def test_missing_masks_are_counted_and_named(folder):
    for name in "bcd":
        save_image(folder / f"images/bee/{name}.png")
    (folder / "masks/bee").mkdir()
    Image.fromarray(LABELS.astype(np.uint8)).save(folder / "masks/bee/c.png")
    (folder / "masks/bee/d.png").mkdir()  # no file
    problem = config_of(folder).missing()
    assert "3 of 4 images" in problem
    for name in ("ant/deep/a.png", "bee/b.png", "bee/d.png"):
        assert name in problem
    assert "bee/c.png" not in problem
    with pytest.raises(DataError, match="3 of 4 images"):
        ImageFolder(config_of(folder), SIZE)
    assert config_of(folder).data_files() is None


@pytest.mark.parametrize("name", ["masks", "nowhere", "a.txt"])
def test_a_folder_without_any_mask(folder, name):
    (folder / "a.txt").write_text("no folder")
    config = ImageFolderConfig(folder=str(folder / "images"), masks=str(folder / name))
    assert str(folder / name) in config.missing()


def test_two_images_cannot_share_a_mask(folder):
    save_image(folder / "images/ant/deep/a.bmp")
    Image.fromarray(LABELS.astype(np.uint8)).save(folder / "masks/ant/deep/a.png")
    problem = config_of(folder).missing()
    assert "ant/deep/a.bmp" in problem
    assert "ant/deep/a.jpg" in problem


def test_more_masks_than_images_are_fine(folder):
    for name in ("ant/deep/a.png", "ant/deep/z.png"):
        Image.fromarray(LABELS.astype(np.uint8)).save(folder / "masks" / name)
    assert config_of(folder).missing() is None


def test_masks_are_among_the_files_that_identify_the_data(folder):
    mask = folder / "masks/ant/deep/a.png"
    Image.fromarray(LABELS.astype(np.uint8)).save(mask)
    without = ImageFolderConfig(folder=str(folder / "images")).data_files()
    files = config_of(folder).data_files()
    assert without.items() < files.items()
    assert mask in files.values()
    assert len(files) == 2


# --- what is wrong when a mask is read ------------------------------------------------------------


def test_a_mask_of_another_size(folder):
    Image.new("L", (SIZE, SIZE + 1)).save(folder / "masks/ant/deep/a.png")
    with pytest.raises(DataError, match=r"masks/ant/deep/a\.png has 16 x 17.*a\.jpg has 16 x 16"):
        mask_of(folder)


def test_a_mask_has_the_size_of_the_upright_image(tmp_path):
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    (tmp_path / "images/ant").mkdir(parents=True)
    image.save(tmp_path / "images/ant/a.jpg", exif=exif)
    (tmp_path / "masks/ant").mkdir(parents=True)
    Image.new("L", (20, 40), 3).save(tmp_path / "masks/ant/a.png")
    assert mask_of(tmp_path).unique().tolist() == [3]
    Image.new("L", (40, 20), 3).save(tmp_path / "masks/ant/a.png")
    with pytest.raises(DataError, match=r"40 x 20.*20 x 40"):
        mask_of(tmp_path)


def cut_off(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:120])


def with_16_bit_colors(path: Path) -> None:
    colors(LABELS).save(path)
    content = bytearray(path.read_bytes())
    content[24] = 16  # bits of each channel
    path.write_bytes(content[:29] + zlib.crc32(content[12:29]).to_bytes(4, "big") + content[33:])


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: path.write_bytes(b""), "a.png"),
        (lambda path: path.write_text("no image"), "a.png"),
        (cut_off, "a.png"),
        (lambda path: Image.new("RGB", (SIZE, SIZE)).save(path, "JPEG"), r"a\.png is JPEG"),
        (lambda path: Image.new("P", (SIZE, SIZE)).save(path, "GIF"), r"a\.png is GIF"),
        (with_16_bit_colors, r"a\.png has 16 bits"),
    ],
    ids=["empty", "text", "cut off", "jpeg", "gif", "16-bit color"],
)
def test_files_that_hold_no_exact_labels(folder, write, expected):
    write(folder / "masks/ant/deep/a.png")
    with pytest.raises(DataError, match=expected):
        mask_of(folder)
