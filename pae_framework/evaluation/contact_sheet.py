"""A picture of the images of a recipe as the framework reads them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from pae_framework.build import build_source
from pae_framework.contracts import DataSource
from pae_framework.data.image_notes import NOTES
from pae_framework.data.image_survey import evenly_spaced
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.report.pictures import save_png, to_picture, visible_scale

_IMAGES = 24
"""Images of each split."""
_COLUMNS = 8
_LETTERS = 18
"""Letters of a line below an image."""
_CELL = 128
_LINE = 12
_INK, _PAPER = (0, 0, 0), (236, 236, 236)


def write_contact_sheet(loaded: LoadedRecipe, file: Path) -> None:
    """Write training and test images, center-cropped, with their classes and names.

    Raises:
        DataError: images are missing or cannot be read; names the file.
        WriteError: the picture cannot be written.
    """
    data = loaded.recipe.data
    rows = [
        (split, _cells(build_source(component, data.image_size, loaded.registry)))
        for split, component in (("training images", data.train), ("test images", data.test))
    ]
    side = max(_CELL, data.image_size)
    height = sum(_LINE * 2 + -(-len(cells) // _COLUMNS) * _row(side) for _, cells in rows)
    sheet = Image.new("RGB", (_COLUMNS * (side + 4), height), _PAPER)
    pen, top = ImageDraw.Draw(sheet), 0
    for title, cells in rows:
        pen.text((4, top + 4), title, _INK)
        top += 2 * _LINE
        for place, (picture, lines) in enumerate(cells):
            left, above = place % _COLUMNS * (side + 4), top + place // _COLUMNS * _row(side)
            sheet.paste(picture, (left, above))
            for number, line in enumerate(lines):
                pen.text((left, above + side + number * _LINE), line, _INK)
        top += -(-len(cells) // _COLUMNS) * _row(side)
    NOTES.summarize()
    save_png(sheet, file)


def _row(side: int) -> int:
    return side + 2 * _LINE + 8


def _cells(source: DataSource) -> list[tuple[Image.Image, list[str]]]:
    """Pictures of evenly spaced images, with the lines below them."""
    names = list(source.config.image_files() or ())
    cells = []
    for index in evenly_spaced(range(len(source)), _IMAGES):
        item = source[index]
        picture = to_picture(item.image)
        scale = max(visible_scale(source.image_size), _CELL // source.image_size)
        picture = picture.resize((picture.width * scale, picture.height * scale), 0)
        name = names[index].rpartition("/")[2] if names else f"image {index}"
        cells.append((picture, [_short(source.class_names[item.label]), _short(name)]))
    return cells


def _short(text: str) -> str:
    """The end of a text, in letters that the font has."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= _LETTERS else f"...{plain[3 - _LETTERS :]}"
