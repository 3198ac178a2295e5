"""The pictures of a page: samples, reconstructions, latents. A missing section is None.

Each image is an element of the page, so that rows wrap on a phone instead of shrinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pae_framework.report.colors import latent_colors, principal_components
from pae_framework.report.content import LabeledImages
from pae_framework.report.page import png_uri
from pae_framework.report.pictures import class_rows, to_picture, visible_scale

_ROW = 660
"""Width of a row of images, px."""
_WIDEST = 128
"""Larger images are shown at this width, px."""
_MOST_CLASSES = 20
_MOST_PIXELS = 4_000_000
"""Image pixels of one section: a file of some megabytes."""


@dataclass(frozen=True)
class Tiles:
    """Images side by side; each entry of ``columns`` is one image or several, one below the other.

    ``side`` is the width on the page in px. ``crisp`` keeps enlarged pixels square. ``alt``
    describes the row for screen readers.
    """

    columns: list[list[str]]
    side: int
    crisp: bool
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class SampleSection:
    """The first set by class, and one image per class of every set, from the same noise."""

    title: str
    by_class: list[tuple[str, Tiles]]
    total_classes: int
    same_noise: list[tuple[str, Tiles]]


def samples(sets: Sequence[LabeledImages], class_names: Sequence[str]) -> SampleSection | None:
    """The first set by class; if there are more sets, also the same noise in all of them."""
    sets = [samples for samples in sets if len(samples.images)]
    if not sets:
        return None
    first = sets[0]
    columns = images_per_row(first.images)
    most_rows = _MOST_PIXELS // (columns * first.images[0, 0].numel())
    classes = max(1, min(_MOST_CLASSES, most_rows))
    rows = class_rows(first.labels, class_names, columns, classes)
    return SampleSection(
        title=first.label,
        by_class=[
            (name, tiles(f"samples of {name}", first.images[indices])) for name, indices in rows
        ],
        total_classes=len(first.labels.unique()),
        same_noise=_same_noise(sets, torch.stack([indices[0] for _, indices in rows[:columns]])),
    )


def sample_strip(images: LabeledImages, class_names: Sequence[str], alt: str) -> Tiles | None:
    """The first two images, one below the other, of each class that fits into a row."""
    if not len(images.images):
        return None
    rows = class_rows(images.labels, class_names, 2, classes=images_per_row(images.images))
    upper = torch.stack([indices[0] for _, indices in rows])
    lower = torch.stack([indices[-1] for _, indices in rows])
    return tiles(alt, images.images[upper], images.images[lower])


def reconstructions(originals: Tensor | None, decoded: Tensor | None) -> Tiles | None:
    """Originals with their reconstructions below."""
    if originals is None or decoded is None or not len(originals):
        return None
    most = 2 * images_per_row(originals)
    alt = "test images, below each its reconstruction"
    return tiles(alt, originals[:most], decoded[:most])


def latents(values: Tensor | None, images: Tensor | None) -> Tiles | None:
    """Images with the colors of their latents below, and the share of variance they show."""
    if values is None or images is None or not len(values):
        return None
    most = 2 * images_per_row(images)
    share = principal_components(values)[1].sum().item()
    caption = (
        "Red, green and blue are the first three principal components of all tokens of "
        f"{len(values)} images; together they hold {share:.0%} of the variance."
    )
    alt = "images, below each the colors of its latent"
    return tiles(alt, images[:most], latent_colors(values)[:most], caption=caption)


def tiles(alt: str, *rows: Tensor, caption: str = "") -> Tiles:
    """Sets of images (M, 3, S, S) uint8; image i of each set is below image i of the set before.

    Sets may differ in S; all are shown at the width of the first.
    """
    side = _shown_side(rows[0])
    columns = [
        [png_uri(to_picture(image)) for image in column] for column in zip(*rows, strict=True)
    ]
    return Tiles(columns, side, any(row.shape[-1] < side for row in rows), alt, caption)


def images_per_row(images: Tensor) -> int:
    """How many of these images fit side by side: 10 of 32 px, 5 of 128 px or more."""
    return _ROW // (_shown_side(images) + 2)


def _shown_side(images: Tensor) -> int:
    side = images.shape[-1]
    return min(_WIDEST, side * visible_scale(side))


def _same_noise(sets: Sequence[LabeledImages], indices: Tensor) -> list[tuple[str, Tiles]]:
    """The images with these indices in every set that has them; empty if only one set does."""
    complete = [samples for samples in sets if len(samples.images) > int(indices.max())]
    if len(complete) < 2:
        return []
    return [
        (samples.label, tiles(f"the same noise: {samples.label}", samples.images[indices]))
        for samples in complete
    ]
