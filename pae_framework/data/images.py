"""Batches of images: from a data source, by step, the same whatever reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pae_framework.contracts import DataSource
from pae_framework.data.pixels import adm_centre_crop, to_float
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError
from pae_framework.plugins import Registry
from pae_framework.recipe.components import DataSourceComponent

ImageBatch = tuple[Tensor, Tensor]
"""Images (B, 3, S, S) float32 in [0, 1] and labels (B,) int64."""


def build_source(component: DataSourceComponent, image_size: int, registry: Registry) -> DataSource:
    """The data source a recipe names, open for reading.

    Raises:
        PluginError: its plugin does not import.
        DataError: its files are missing or damaged.
    """
    source: DataSource = registry.find("dataset", component.use).component_class()(
        component.config, image_size
    )
    return source


def read_image(path: Path, size: int) -> Tensor:
    """An image file as (3, size, size) uint8 RGB, cropped as ADM crops.

    Raises:
        DataError: names the file and why it cannot be read.
    """
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    # Pillow's decoders raise SyntaxError and ValueError, too, on damaged files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
    return torch.from_numpy(np.array(adm_centre_crop(rgb, size))).permute(2, 0, 1)


def read_batch(
    source: DataSource, indices: Tensor | Sequence[int], flips: Tensor | None = None
) -> ImageBatch:
    """Images at the indices (B,), mirrored where ``flips`` (B,) says so, and their labels.

    Raises:
        DataError: an image cannot be read.
    """
    images, labels = _read_uint8(source, indices)
    batch = to_float(images)
    if flips is not None:
        batch = torch.where(flips[:, None, None, None], batch.flip(-1), batch)
    return batch, labels


class ImageBatches:
    """Batches of training images by step: ``batches(start, stop)`` iterates over those steps.

    Args:
        source: where the images come from.
        stream: which images, and which of them mirrored, each step gets.
        flip: whether images are mirrored at random at all.
        workers: processes that read ahead; 0 reads here. The batches are the same.
    """

    def __init__(self, source: DataSource, stream: CountStream, flip: bool, workers: int = 0):
        self._steps = _Steps(source, stream, flip)
        self._workers = workers

    def __call__(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Batches of the steps from ``start`` up to, not including, ``stop``."""
        if not self._workers:
            return (self._steps[step] for step in range(start, stop))
        loader = DataLoader(
            self._steps,
            batch_size=None,  # an item is a whole batch already
            sampler=range(start, stop),
            num_workers=self._workers,
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)


class _Steps(Dataset[ImageBatch]):
    """Item k is the batch of step k."""

    def __init__(self, source: DataSource, stream: CountStream, flip: bool):
        self.source, self.stream, self.flip = source, stream, flip

    def __getitem__(self, step: int) -> ImageBatch:
        flips = self.stream.flips(step) if self.flip else None
        return read_batch(self.source, self.stream.batch(step), flips)


def all_images(source: DataSource, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """The first ``limit`` images (M, 3, S, S) uint8 and labels (M,); all with None."""
    return _read_uint8(source, range(_count(source, limit)))


def all_masks(source: DataSource, limit: int | None = None) -> Tensor | None:
    """Masks (M, S, S) int64 of the first ``limit`` images, or None where the source has none."""
    masks = []
    for index in range(_count(source, limit)):
        mask = source.mask(index)
        if mask is None:
            return None
        masks.append(mask)
    return torch.stack(masks)


def _count(source: DataSource, limit: int | None) -> int:
    return len(source) if limit is None else min(limit, len(source))


def _read_uint8(source: DataSource, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
    places = indices.tolist() if isinstance(indices, Tensor) else list(indices)
    items = [source[index] for index in places]
    images = torch.stack([item.image for item in items])
    return images, torch.tensor([item.label for item in items])
