"""What transparent pixels of image files become: every kind of transparency, over any color."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from pae_datasets.config import ImageFolderConfig, WebDatasetConfig
from pae_datasets.image_folder import ImageFolder
from pae_datasets.webdataset import WebDataset
from pae_framework.data import image_notes
from pae_framework.data.image_notes import ImageNotes

SIDE = 16
RED = (200, 0, 0)


def half_clear(opacity: int = 0) -> np.ndarray:
    """Red (S, S, 4) whose left half has this opacity; its hidden color is red as well."""
    pixels = np.full((SIDE, SIDE, 4), (*RED, 255), np.uint8)
    pixels[:, : SIDE // 2, 3] = opacity
    return pixels


def palette(alpha: int | bytes) -> Image.Image:
    """Colors 0 on the left and 1 on the right, both red; transparency as PNG stores it."""
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([*RED, *RED])
    image.paste(0, (0, 0, SIDE // 2, SIDE))
    image.info["transparency"] = alpha
    return image


def keyed(mode: str, left: int | tuple[int, ...], right: int | tuple[int, ...]) -> Image.Image:
    """An image without alpha, of which one color is declared transparent."""
    image = Image.new(mode, (SIDE, SIDE), right)
    image.paste(left, (0, 0, SIDE // 2, SIDE))
    image.info["transparency"] = left
    return image


def gray_16_bits() -> Image.Image:
    values = np.full((SIDE, SIDE), 200 << 8, np.uint16)
    values[:, : SIDE // 2] = 77
    image = Image.fromarray(values)
    image.info["transparency"] = 77
    return image


CLEAR_LEFT = {
    "RGBA": lambda: Image.fromarray(half_clear()),
    "LA": lambda: Image.fromarray(half_clear()).convert("LA"),
    "palette, one clear color": lambda: palette(0),
    "palette, alpha of each color": lambda: palette(bytes([0, 255])),
    "RGB, one clear color": lambda: keyed("RGB", (1, 2, 3), RED),
    "L, one clear value": lambda: keyed("L", 7, 200),
    "1 bit, one clear value": lambda: keyed("1", 0, 255),
    "16 bits, one clear value": gray_16_bits,
}


def folder_with(tmp_path: Path, image: Image.Image, suffix: str = "png") -> Path:
    (tmp_path / "data" / "one").mkdir(parents=True)
    options = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    image.save(tmp_path / "data" / "one" / f"a.{suffix}", lossless=True, **options)
    return tmp_path / "data"


def read(folder: Path, **settings: object) -> np.ndarray:
    """The image (S, S, 3)."""
    config = ImageFolderConfig(folder=str(folder), cache_gib=0.0, **settings)
    return ImageFolder(config, SIDE)[0].image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", CLEAR_LEFT)
@pytest.mark.parametrize(
    ("background", "color"),
    [(None, (255, 255, 255)), ("black", (0, 0, 0)), ((10, 20, 30), (10, 20, 30))],
)
def test_clear_pixels_have_the_color_of_the_background(tmp_path, kind, background, color):
    folder = folder_with(tmp_path, CLEAR_LEFT[kind]())
    image = read(folder, **({} if background is None else {"background": background}))
    assert (image[:, : SIDE // 2] == color).all()
    assert (image[:, SIDE // 2 :] == image[0, -1]).all()  # opaque pixels do not depend on it
    assert image[0, -1].max() >= 58


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_pixels_between_are_mixed_by_their_opacity(tmp_path, suffix):
    image = read(folder_with(tmp_path, Image.fromarray(half_clear(51)), suffix))
    # 51 / 255 = 1 / 5: a fifth of red, four fifths of white
    assert image[0, 0].tolist() == [200 // 5 + 204, 204, 204]
    assert image[0, -1].tolist() == list(RED)


def test_hidden_colors_do_not_bleed_into_the_edge_of_a_smaller_picture(tmp_path):
    pixels = np.zeros((4 * SIDE, 4 * SIDE, 4), np.uint8)  # clear black around a white square
    pixels[SIDE : 3 * SIDE, SIDE : 3 * SIDE] = 255
    assert read(folder_with(tmp_path, Image.fromarray(pixels))).min() == 255


@pytest.mark.parametrize(
    ("background", "noted"), [("white", False), ("black", False), ("stored", True)]
)
def test_only_ignored_transparency_is_noted(tmp_path, monkeypatch, background, noted):
    notes = ImageNotes()
    monkeypatch.setattr("pae_framework.data.image_files.NOTES", notes)
    monkeypatch.setattr(image_notes, "NOTES", notes)
    image = read(folder_with(tmp_path, Image.fromarray(half_clear())), background=background)
    assert bool(notes.take()) == noted
    assert (image[0, 0].tolist() == list(RED)) == noted


def test_an_opaque_image_is_the_same_over_any_background(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    noise[..., 3] = 255
    folder = folder_with(tmp_path, Image.fromarray(noise))
    read_all = [read(folder, background=color) for color in ("white", "black", "stored")]
    assert all(np.array_equal(image, noise[..., :3]) for image in read_all)


@pytest.mark.parametrize(
    "background", ["gray", "", None, (1, 2), (1, 2, 256), (-1, 0, 0), (0.5, 0, 0), True, 255]
)
def test_other_backgrounds_are_refused(background):
    with pytest.raises(ValidationError, match="background"):
        ImageFolderConfig(folder="x", background=background)


def test_shards_have_backgrounds_too(tmp_path):
    png = io.BytesIO()
    Image.fromarray(half_clear()).save(png, "png")
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, content in (("0.png", png.getvalue()), ("0.cls", b"0")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    colors = {
        background: WebDataset(WebDatasetConfig(folder=str(tmp_path), background=background), SIDE)[
            0
        ].image[:, 0, 0]
        for background in ("white", "stored")
    }
    assert colors["white"].tolist() == [255, 255, 255]
    assert colors["stored"].tolist() == list(RED)
