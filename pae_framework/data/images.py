"""Batches of images: from a data source, by step, the same whatever reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pae_framework.contracts import DataSource
from pae_framework.data.pixels import adm_centre_crop, to_float
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError
from pae_framework.seeding import generator

ImageBatch = tuple[Tensor, Tensor]
"""Images (B, 3, S, S) float32 in [0, 1] and labels (B,) int64."""


def read_image(path: Path, size: int) -> Tensor:
    """An image file as (3, size, size) uint8 RGB, cropped as ADM crops.

    Raises:
        DataError: names the file and why it cannot be read.
    """
    try:
        with Image.open(path) as image:
            rgb = _eight_bit(image).convert("RGB")
    # Pillow's decoders raise SyntaxError and ValueError, too, on damaged files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
    return torch.from_numpy(np.array(adm_centre_crop(rgb, size))).permute(2, 0, 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel: Pillow's own conversion cuts 16 bits off at 255.

    Raises:
        ValueError: its values have no known range.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range of values; save it with 8 bits")
    return image


def read_batch(
    source: DataSource, indices: Tensor | Sequence[int], flips: Tensor | None = None
) -> ImageBatch:
    """Images at the indices (B,), mirrored where ``flips`` (B,) says so, and their labels.

    Raises:
        DataError: an image cannot be read.
    """
    return _as_floats(_read_uint8(source, indices, flips))


class ImageBatches:
    """Batches of training images by step: ``batches(start, stop)`` iterates over those steps.

    Args:
        source: where the images come from.
        stream: which images, and which of them mirrored, each step gets.
        flip: whether images are mirrored at random at all.
        workers: processes that read ahead; 0 reads here. The batches are the same.
    """

    def __init__(self, source: DataSource, stream: CountStream, flip: bool, workers: int = 0):
        self._source, self._stream, self._flip = source, stream, flip
        self._workers = workers

    def __call__(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Batches of the steps from ``start`` up to, not including, ``stop``."""
        # uint8 is a quarter of what the processes would have to hand over as float32.
        return map(_as_floats, read_steps(self._read, start, stop, self._workers))

    def _read(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) uint8 and labels (B,) of one step."""
        flips = self._stream.flips(step) if self._flip else None
        return _read_uint8(self._source, self._stream.batch(step), flips)


def subset(length: int, count: int | None, seed: int) -> list[int]:
    """``count`` of the indices 0 to ``length`` - 1, drawn at random by the seed, in their order.

    All of them where ``count`` is None or not smaller. The first of a source would not do: many are
    sorted by class. Of one length and seed, a smaller subset is part of every larger one.
    """
    if count is None or count >= length:
        return list(range(length))
    order = torch.randperm(length, generator=generator(seed, "test images"))
    return sorted(order[:count].tolist())


def all_images(source: DataSource, indices: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Images (M, 3, S, S) uint8 and labels (M,) at the indices; of the whole source with None."""
    return _read_uint8(source, range(len(source)) if indices is None else indices)


def all_masks(source: DataSource, indices: Sequence[int] | None = None) -> Tensor | None:
    """Masks (M, S, S) int64 at the indices, all with None; None where the source has none."""
    masks = []
    for index in range(len(source)) if indices is None else indices:
        mask = source.mask(index)
        if mask is None:
            return None
        masks.append(mask)
    return torch.stack(masks)


def _as_floats(batch: tuple[Tensor, Tensor]) -> ImageBatch:
    images, labels = batch
    return to_float(images), labels


def _read_uint8(
    source: DataSource, indices: Tensor | Sequence[int], flips: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    places = indices.tolist() if isinstance(indices, Tensor) else list(indices)
    items = [source[index] for index in places]
    images = torch.stack([item.image for item in items])
    if flips is not None:
        images = torch.where(flips[:, None, None, None], images.flip(-1), images)
    return images, torch.tensor([item.label for item in items])
