"""Read images: files, images of a data source by index, training batches by step.

Shapes: B images of a batch, M images of a set, S image side in px.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pae_framework.contracts import DataSource
from pae_framework.data.data_settings import STORED, Background
from pae_framework.data.feature_shards import FeatureRows
from pae_framework.data.image_files import (
    decoding,
    open_image,
    open_image_bytes,
    reduce_jpeg,
    upright_rgb,
)
from pae_framework.data.image_notes import Note
from pae_framework.data.pixels import adm_center_crop, to_float
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.stream import CountStream
from pae_framework.seeding import generator

ImageBatch = tuple[Tensor, ...]
"""Images (B, 3, S, S) float32 in [0, 1] and labels (B,) int64; then cached tokens, if there are."""


def read_image(
    path: Path,
    size: int,
    reduced: bool = False,
    background: Background = STORED,
    note: Note | None = None,
) -> Tensor:
    """Read an image file as (3, size, size) uint8 RGB, turned upright, with ADM's center crop.

    Of a file with several frames, the first is read. Color profiles are ignored, but noted, and so
    is transparency without a background.

    Args:
        path: the file.
        size: side in px.
        reduced: decode large JPEG files at a reduced size: faster, but other pixels.
        background: what transparent pixels are composited over.
        note: takes notes about the file; None: those of the process.

    Raises:
        DataError: names the file and why it cannot be read.
    """
    with open_image(path) as image:
        return _cropped(image, path, size, reduced, background, note)


def decode_image(
    content: bytes,
    name: str,
    size: int,
    reduced: bool = False,
    background: Background = STORED,
) -> Tensor:
    """The same for the content of an image file; ``name`` says which one in messages."""
    with open_image_bytes(content, name) as image:
        return _cropped(image, name, size, reduced, background)


def _cropped(
    image: Image.Image,
    name: Path | str,
    size: int,
    reduced: bool,
    background: Background,
    note: Note | None = None,
) -> Tensor:
    if reduced:
        reduce_jpeg(image, size)
    rgb = upright_rgb(image, name, background, note)
    with decoding(name, MemoryError):
        square = adm_center_crop(rgb, size)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def read_images(
    source: DataSource,
    indices: Tensor | Sequence[int] | None = None,
    flips: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Read images (M, 3, S, S) uint8 and labels (M,) int64 of a source.

    Args:
        source: where the images come from.
        indices: M indices; None: all.
        flips: (M,) bool, whether to mirror each image; None: mirror none.

    Raises:
        DataError: an image cannot be read.
    """
    items = [source[int(index)] for index in _all_or(indices, source)]
    images = torch.stack([item.image for item in items])  # (M, 3, S, S)
    if flips is not None:
        images = torch.where(flips[:, None, None, None], images.flip(-1), images)
    return images, torch.tensor([item.label for item in items])


def cropped(images: Tensor, offsets: Tensor, side: int) -> Tensor:
    """Squares (M, 3, side, side) of images (M, 3, S, S), at rows and columns ``offsets`` (M, 2)."""
    squares = [
        image[:, top : top + side, left : left + side]
        for image, (top, left) in zip(images, offsets.tolist(), strict=True)
    ]
    return torch.stack(squares)


def read_masks(source: DataSource, indices: Sequence[int] | None = None) -> Tensor | None:
    """Read masks (M, S, S) int64 at the indices (None: all); None if an image has no mask."""
    masks = []
    for index in _all_or(indices, source):
        if (mask := source.mask(int(index))) is None:
            return None
        masks.append(mask)
    return torch.stack(masks)


def _all_or(indices: Tensor | Sequence[int] | None, source: DataSource) -> Iterable[int | Tensor]:
    return range(len(source)) if indices is None else indices


@dataclass(frozen=True)
class ImageBatches:
    """Batches of training images by step: ``batches(start, stop)`` iterates over those steps.

    Args:
        source: where the images come from.
        stream: decides which images each step gets, and which of them are mirrored.
        flip: whether to mirror images at random.
        workers: processes that read ahead; 0: read in this one. The batches are the same.
        features: cached tokens of the images, which are added to the batches; None: there are none.
        crop_to: side to which each image is cropped at random; None: images stay whole.
    """

    source: DataSource
    stream: CountStream
    flip: bool
    workers: int = 0
    features: FeatureRows | None = None
    crop_to: int | None = None

    def __call__(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Batches of the steps from ``start`` up to, not including, ``stop``."""
        # Workers send uint8, a quarter of the size of float32.
        for images, *others in read_steps(self._read, start, stop, self.workers):
            yield to_float(images), *others

    def _read(self, step: int) -> ImageBatch:
        flips = self.stream.flips(step) if self.flip else None  # (B,)
        indices = self.stream.batch(step)  # (B,)
        images, labels = read_images(self.source, indices, flips)
        if self.crop_to is not None:
            offsets = self.stream.offsets(step, self.source.image_size - self.crop_to + 1)  # (B, 2)
            images = cropped(images, offsets, self.crop_to)
        if self.features is None:
            return images, labels
        return images, labels, self.features.batch(indices, flips)


def random_subset(length: int, count: int | None, seed: int) -> list[int]:
    """Choose ``count`` of the indices 0 to ``length`` - 1 at random by the seed; sorted.

    All indices if ``count`` is None or not smaller than ``length``. The choice is random because
    many sources are sorted by class. With the same length and seed, a larger subset contains every
    smaller one.
    """
    if count is None or count >= length:
        return list(range(length))
    order = torch.randperm(length, generator=generator(seed, "test images"))
    return sorted(order[:count].tolist())
