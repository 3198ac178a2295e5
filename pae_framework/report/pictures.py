"""Tensors to pictures: grids, comparisons, samples by class; PNG files.

Images are uint8, ``(M, 3, S, S)``; pictures are RGBA with transparent gaps, so they sit on a light
and on a dark page. Small images are enlarged by whole factors without interpolation.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.files import replacing

GAP = 2
"""Pixels between images of a grid."""
_VISIBLE = 64
_LABEL = (128, 128, 128, 255)


def visible_scale(side: int) -> int:
    """Whole factor that brings images of ``side`` px to about 64 px; 1 for larger ones."""
    return max(1, _VISIBLE // side)


def to_picture(image: Tensor) -> Image.Image:
    """One image (3, S, S) uint8 as it is."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def grid(images: Tensor, columns: int, scale: int | None = None, gap: int = GAP) -> Image.Image:
    """Images (M, 3, S, S) uint8 in rows of ``columns``, each enlarged ``scale`` times.

    ``scale`` None chooses :func:`visible_scale`. The picture is as wide as ``min(columns, M)``
    images with ``gap`` px between them; places after the last image stay transparent.

    Raises:
        DataError: no image, or not uint8 of that shape.
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
    """Pairs, one above the other: a row of originals, below it what was made of them, and so on.

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
    return _stack(bands, gap=4 * GAP)


def class_rows(
    labels: Tensor, class_names: Sequence[str], per_class: int, classes: int | None = None
) -> list[tuple[str, Tensor]]:
    """For each class that has images: its name and the indices of its first ``per_class`` ones.

    ``classes`` limits how many; they are then spread evenly over those present. A label without a
    name is called ``class 7``.
    """
    present = labels.unique().tolist()
    if classes is not None and len(present) > classes:
        present = [present[i * len(present) // classes] for i in range(classes)]
    return [
        (
            class_names[label] if label < len(class_names) else f"class {label}",
            (labels == label).nonzero().flatten()[:per_class],
        )
        for label in present
    ]


def by_class(
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    per_class: int = 8,
    scale: int | None = None,
) -> Image.Image:
    """Images (M, 3, S, S) uint8 with labels (M,): a row per class, its name to the left.

    Raises:
        DataError: no image, not uint8 of that shape, or another number of labels.
    """
    _check(images)
    if len(labels) != len(images):
        raise DataError(f"{len(images)} images came with {len(labels)} labels")
    rows = class_rows(labels, class_names, per_class)
    strips = [grid(images[indices], per_class, scale) for _, indices in rows]
    return _stack([_labelled(name, strip) for (name, _), strip in zip(rows, strips, strict=True)])


def png_bytes(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(image: Image.Image, path: Path) -> None:
    """Write the picture aside and rename it into place: a reader sees all of it or nothing."""
    with replacing(path) as aside:
        aside.write_bytes(png_bytes(image))


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(
            f"expected uint8 images (M, 3, S, S), got {images.dtype} {tuple(images.shape)}"
        )
    if not len(images):
        raise DataError("no image to show")


def _stack(pictures: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGBA", (max(picture.width for picture in pictures), height))
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + gap
    return canvas


def _labelled(name: str, strip: Image.Image, width: int = 104) -> Image.Image:
    canvas = Image.new("RGBA", (width + strip.width, strip.height))
    canvas.paste(strip, (width, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    text = " ".join(name.split())
    while len(text) > 1 and draw.textlength(text, font=font) > width - 10:
        text = text.rstrip("…")[:-1] + "…"
    draw.text((width - 8, strip.height / 2), text, fill=_LABEL, font=font, anchor="rm")
    return canvas
