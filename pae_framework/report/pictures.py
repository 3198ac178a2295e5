"""Tensors to pictures: grids and comparisons; PNG files.

Images are uint8, ``(M, 3, S, S)``. Pictures are RGBA with transparent gaps, to suit a light and a
dark page. Small images are enlarged by whole factors without interpolation.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.system.files import replacing

GAP = 2
"""Pixels between images of a grid."""
_VISIBLE = 64


def visible_scale(side: int) -> int:
    """Whole factor that enlarges images of ``side`` px to about 64 px; 1 for larger ones."""
    return max(1, _VISIBLE // side)


def to_picture(image: Tensor) -> Image.Image:
    """A picture of one image (3, S, S) uint8, not enlarged."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def grid(images: Tensor, columns: int, scale: int | None = None, gap: int = GAP) -> Image.Image:
    """Images (M, 3, S, S) uint8 in rows of ``columns``, each enlarged ``scale`` times.

    ``scale`` None chooses :func:`visible_scale`. The picture is as wide as ``min(columns, M)``
    images with ``gap`` px between them. Cells after the last image stay transparent.

    Raises:
        DataError: there is no image, or not uint8 of this shape.
    """
    _check(images)
    M, _, S, _ = images.shape
    factor = visible_scale(S) if scale is None else scale
    columns = min(columns, M)
    rows = -(-M // columns)
    side, step = S * factor, S * factor + gap
    canvas = torch.zeros(rows * step - gap, columns * step - gap, 4, dtype=torch.uint8)
    enlarged = images.cpu().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    for index, image in enumerate(enlarged.permute(0, 2, 3, 1)):
        top, left = index // columns * step, index % columns * step
        canvas[top : top + side, left : left + side, :3] = image
        canvas[top : top + side, left : left + side, 3] = 255
    return Image.fromarray(canvas.numpy())


def compare(
    originals: Tensor, others: Tensor, columns: int = 8, scale: int | None = None
) -> Image.Image:
    """Rows of originals, each with the row of their counterparts below.

    Raises:
        DataError: the two are not (M, 3, S, S) uint8 of one shape.
    """
    _check(originals)
    if originals.shape != others.shape:
        raise DataError(
            f"cannot compare images of shape {tuple(originals.shape)} with {tuple(others.shape)}"
        )
    bands = [
        grid(torch.cat([first, second]), len(first), scale)
        for first, second in zip(originals.split(columns), others.split(columns), strict=True)
    ]
    return stack(bands, gap=4 * GAP)


def class_rows(
    labels: Tensor, class_names: Sequence[str], per_class: int, classes: int
) -> list[tuple[str, Tensor]]:
    """Name and first ``per_class`` indices of at most ``classes`` classes that have images.

    If there are more classes, those chosen are evenly spaced. A label without a name is called
    ``class 7``.
    """
    present = labels.unique().tolist()
    if len(present) > classes:
        present = [present[i * len(present) // classes] for i in range(classes)]
    return [
        (
            class_names[label] if label < len(class_names) else f"class {label}",
            (labels == label).nonzero().flatten()[:per_class],
        )
        for label in present
    ]


def png_bytes(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(image: Image.Image, path: Path) -> None:
    """Write the picture to a temporary file and rename it, so that no reader sees half of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(png_bytes(image))


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(
            f"expected uint8 images (M, 3, S, S), got {images.dtype} {tuple(images.shape)}"
        )
    if not len(images):
        raise DataError("no image to show")


def stack(pictures: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Pictures one below the other, with ``gap`` px between them."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGBA", (max(picture.width for picture in pictures), height))
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + gap
    return canvas
