"""Images in tar files, as WebDataset writes them, read at any index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pae_datasets.config import WebDatasetConfig
from pae_datasets.tar_index import index_shards
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.data.images import decode_image
from pae_framework.errors import DataError


class WebDataset(DataSource):
    """Images of tar shards, in the order of the shards' names and of the files in them.

    The shards are scanned once; then each image is read where it is.
    """

    def __init__(self, config: WebDatasetConfig, image_size: int):
        super().__init__(config, image_size)
        shards = config.shards()
        if isinstance(shards, str):
            raise DataError(shards)
        self._reduced = config.reduced_jpeg
        self._paths = list(shards.values())
        self._shards = index_shards(self._paths, config.image, config.label)
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self._labels: list[int] = np.concatenate([x.labels for x in self._shards]).tolist()
        where = f"{config.root}/{config.pattern}"
        if not self._labels:
            raise DataError(f"{where}: the shards hold no image")
        if config.images not in (None, len(self)):
            raise DataError(f"{where}: {len(self)} images, but `images` is {config.images}")
        self._class_names = _class_names(config, self._labels, where)

    @property
    def class_names(self) -> Sequence[str]:
        """``class_names``, else the numbers of the classes."""
        return self._class_names

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> LabeledImage:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard, path = self._shards[number], self._paths[number]
        row = index - int(self._ends[number]) + len(shard)
        name = f"{path}/{os.fsdecode(bytes(shard.keys[row]))}"
        content = _read(path, name, int(shard.offsets[row]), int(shard.sizes[row]))
        image = decode_image(content, name, self.image_size, self._reduced)
        return LabeledImage(image, self._labels[index])

    def labels(self) -> Sequence[int]:
        """The label of each image."""
        return self._labels


def _read(path: Path, name: str, offset: int, size: int) -> bytes:
    """Bytes of a shard. It is opened for each image: worker processes share no position."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(size) or b""
            while len(content) < size and (more := file.read(size - len(content))):
                content += more
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    if len(content) < size:
        raise DataError(f"{name}: {path.name} has changed: it ends before this image does")
    return content


def _class_names(config: WebDatasetConfig, labels: Sequence[int], where: str) -> list[str]:
    found = sorted(set(labels))
    count = found[-1] + 1
    if config.class_names is not None:
        if len(config.class_names) < count:
            raise DataError(
                f"{where}: labels up to {count - 1}, but `class_names` has "
                f"{len(config.class_names)} names"
            )
        return list(config.class_names)
    if len(found) < count:
        raise DataError(
            f"{where}: labels up to {count - 1}, but only {len(found)} of them have images; add "
            "the missing shards, or set `class_names`"
        )
    if config.classes not in (None, count):
        raise DataError(f"{where}: {count} classes, but `classes` is {config.classes}")
    return [str(label) for label in range(count)]
