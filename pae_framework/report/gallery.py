"""The pictures of a page: samples, reconstructions, latents. A missing section is None.

Each image is an element of the page. Rows wrap on a phone; rows that are compared with each other
shrink instead, so that their images stay below each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pae_framework.report.colors import latent_colors, principal_components
from pae_framework.report.content import (
    Clusters,
    LabeledImages,
    Nearest,
    Rotations,
    VariantImages,
)
from pae_framework.report.encoding import tile_uri
from pae_framework.report.pictures import class_rows, to_picture, visible_scale
from pae_framework.report.plots import PALETTE

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
    describes the row for screen readers. ``shrinks``: on a narrow screen, instead of wrapping.
    """

    columns: list[list[str]]
    side: int
    crisp: bool
    alt: str
    caption: str = ""
    shrinks: bool = False


Strip = tuple[str, Tiles]
"""A row of images with its label."""


@dataclass(frozen=True)
class SampleSection:
    """Samples by class."""

    title: str
    by_class: list[Strip]
    total_classes: int


def samples(main: LabeledImages | None, class_names: Sequence[str]) -> SampleSection | None:
    """Samples by class."""
    if main is None or not len(main.images):
        return None
    rows = _rows_by_class(main, class_names)
    return SampleSection(
        title=main.label,
        by_class=[
            (name, tiles(f"samples of {name}", main.images[indices])) for name, indices in rows
        ],
        total_classes=len(main.labels.unique()),
    )


def same_noise(
    sets: Sequence[LabeledImages], class_names: Sequence[str], varied: str
) -> list[Strip]:
    """The first image of each class in every set; empty if fewer than two sets have them."""
    sets = [each for each in sets if len(each.images)]
    if not sets:
        return []
    rows = _rows_by_class(sets[-1], class_names)[: images_per_row(sets[-1].images)]
    indices = torch.stack([of_class[0] for _, of_class in rows])
    complete = [each for each in sets if len(each.images) > int(indices.max())]
    if len(complete) < 2:
        return []
    return [
        (each.label, tiles(f"{varied}: {each.label}", each.images[indices], shrinks=True))
        for each in complete
    ]


def nearest(found: Nearest | None) -> Tiles | None:
    """Samples, below each its nearest training images, the nearest first."""
    if found is None or not len(found.samples) or not found.nearest.shape[1]:
        return None
    most = images_per_row(found.samples)
    caption = (
        f"Top row: the first sample of each class. Below: its {found.nearest.shape[1]} nearest of "
        f"{found.looked_at:,} training images"
        + (
            f", chosen at random of {found.available:,}"
            if found.looked_at < found.available
            else ""
        )
        + f", by the {found.measure}."
    )
    alt = "samples, below each its nearest training images"
    rows = found.nearest[:most].unbind(1)
    return tiles(alt, found.samples[:most], *rows, caption=caption, shrinks=True)


def sample_strip(images: LabeledImages, class_names: Sequence[str], alt: str) -> Tiles | None:
    """The first two images, one below the other, of each class that fits into a row."""
    if not len(images.images):
        return None
    rows = _strip_rows(images, class_names)
    upper = torch.stack([indices[0] for _, indices in rows])
    lower = torch.stack([indices[-1] for _, indices in rows])
    return tiles(alt, images.images[upper], images.images[lower])


def strip_classes(images: LabeledImages, class_names: Sequence[str]) -> list[str]:
    """The classes in :func:`sample_strip`, from left to right."""
    return [name for name, _ in _strip_rows(images, class_names)] if len(images.images) else []


def reconstructions(originals: Tensor | None, decoded: Tensor | None) -> Tiles | None:
    """Originals with their reconstructions and the differences below."""
    if originals is None or decoded is None or not len(originals):
        return None
    most = 2 * images_per_row(originals)
    originals, decoded = originals[:most], decoded[:most]
    differences, factor = scaled_differences(originals, decoded)
    return tiles(
        "test images, below each its reconstruction and the difference",
        originals,
        decoded,
        differences,
        caption="From top to bottom: test image, reconstruction, absolute difference"
        + (f" times {factor}." if factor > 1 else "."),
    )


def scaled_differences(a: Tensor, b: Tensor) -> tuple[Tensor, int]:
    """Absolute differences (M, 3, S, S) uint8 times a factor, and the factor.

    It is the largest of 1, 2, 4, 8 and 16 at which at most one value in a hundred is cut at 255.
    """
    differences = (a.int() - b.int()).abs()
    values = differences.flatten()
    high = int(values.kthvalue(max(1, round(0.99 * len(values)))).values)
    factor = next(factor for factor in (16, 8, 4, 2, 1) if factor * high <= 255)
    return (differences * factor).clamp_max(255).to(torch.uint8), factor


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


def variant_rows(
    shown: Mapping[str, VariantImages], what: str, of: Callable[[VariantImages], Tensor]
) -> list[Strip]:
    """Of each variant a row of pictures (M, 3, s, s) of its test images, which are above it.

    Variants that follow each other share the row of test images if theirs are the same.
    """
    strips: list[Strip] = []
    above: Tensor | None = None
    for variant, found in shown.items():
        most = images_per_row(found.images)
        if above is None or not torch.equal(above, found.images):
            above = found.images
            row = tiles("test images", above[:most], shrinks=True)
            strips.append(("test images", row))
        side = strips[-1][1].side
        row = tiles(f"{what} of {variant}", of(found)[:most], shrinks=True)
        strips.append((variant, replace(row, side=side, crisp=row.crisp or row.side != side)))
    return strips


def clusters(found: Clusters | None) -> Tiles | None:
    """Images with the clusters of their tokens, and their masks if there are any, below."""
    if found is None or not len(found.images):
        return None
    most = images_per_row(found.images)
    maps = [_palette_colors(numbers[:most]) for numbers in found.maps.values()]
    names = [f"clusters of the {name}" for name in found.maps]
    if found.masks is not None:
        segments = found.masks[:most].unique(return_inverse=True)[1]
        maps.append(_palette_colors(segments))
        names.append("mask")
    count = max(int(numbers.max()) + 1 for numbers in found.maps.values())
    caption = (
        f"From top to bottom: test image, {', '.join(names)}. {count} clusters by k-means over the "
        f"tokens of {len(found.images)} images; within a row, a color is one cluster."
    )
    alt = "test images, below each the clusters of its tokens"
    return tiles(alt, found.images[:most], *maps, caption=caption, shrinks=True)


def rotations(found: Rotations | None) -> list[Strip]:
    """A row of decoded images for each angle."""
    if found is None or not found.images.shape[1]:
        return []
    most = images_per_row(found.images[0])
    return [
        (f"{angle:g}°", tiles(f"latents rotated by {angle:g} degrees", row[:most], shrinks=True))
        for angle, row in zip(found.degrees, found.images, strict=True)
    ]


def tiles(alt: str, *rows: Tensor, caption: str = "", shrinks: bool = False) -> Tiles:
    """Sets of images (M, 3, S, S) uint8; image i of each set is below image i of the set before.

    Sets may differ in S; all are shown at the width of the first.
    """
    side = _shown_side(rows[0])
    columns = [
        [tile_uri(to_picture(image)) for image in column] for column in zip(*rows, strict=True)
    ]
    return Tiles(columns, side, any(row.shape[-1] < side for row in rows), alt, caption, shrinks)


def images_per_row(images: Tensor) -> int:
    """How many of these images fit side by side: 10 of 32 px, 5 of 128 px or more."""
    return _ROW // (_shown_side(images) + 2)


def _shown_side(images: Tensor) -> int:
    side = images.shape[-1]
    return min(_WIDEST, side * visible_scale(side))


def _strip_rows(images: LabeledImages, class_names: Sequence[str]) -> list[tuple[str, Tensor]]:
    return class_rows(images.labels, class_names, 2, classes=images_per_row(images.images))


def _rows_by_class(samples: LabeledImages, class_names: Sequence[str]) -> list[tuple[str, Tensor]]:
    columns = images_per_row(samples.images)
    most_rows = _MOST_PIXELS // (columns * samples.images[0, 0].numel())
    classes = max(1, min(_MOST_CLASSES, most_rows))
    return class_rows(samples.labels, class_names, columns, classes)


def _palette_colors(numbers: Tensor) -> Tensor:
    """Numbers (M, h, w) as colors (M, 3, h, w) uint8."""
    colors = torch.tensor([list(bytes.fromhex(color[1:])) for color in PALETTE], dtype=torch.uint8)
    return colors[numbers % len(colors)].permute(0, 3, 1, 2)
