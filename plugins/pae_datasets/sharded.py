"""Images in large files, each of which holds many."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pae_datasets.config import ShardsConfig
from pae_datasets.index_cache import Array
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.data.images import decode_image
from pae_framework.errors import DataError


class Index(Protocol):
    """What a file holds."""

    @property
    def labels(self) -> Array:
        """Labels (M,) of its images, in order."""


class ShardedImages(DataSource):
    """Images of several files, in the order of the files' names and of the images in them.

    The files are scanned once; then each image is read where it is.

    Raises:
        DataError: files are missing or damaged, or do not hold what the config says.
    """

    def __init__(self, config: ShardsConfig, image_size: int):
        super().__init__(config, image_size)
        if (problem := config.missing()) is not None:
            raise DataError(problem)
        shards = config.shards()
        assert not isinstance(shards, str)
        self._reduced, self._background = config.reduced_jpeg, config.background
        self._paths = list(shards.values())
        indices = self.index(self._paths)
        self._ends = np.cumsum([len(index.labels) for index in indices])
        self._labels: list[int] = np.concatenate([index.labels for index in indices]).tolist()
        where = f"{config.root}/{config.pattern}"
        if not self._labels:
            raise DataError(f"{where}: the shards hold no image")
        if config.images not in (None, len(self)):
            raise DataError(f"{where}: {len(self)} images, but `images` is {config.images}")
        self._class_names = _class_names(config, self._labels, where)

    @abstractmethod
    def index(self, paths: Sequence[Path]) -> Sequence[Index]:
        """What each file holds; kept by the subclass for :meth:`content`."""

    @abstractmethod
    def content(self, shard: int, row: int) -> tuple[str, bytes]:
        """Name and bytes of an image: ``row`` in the file with the number ``shard``."""

    @property
    def class_names(self) -> Sequence[str]:
        """``class_names``, else the numbers of the classes."""
        return self._class_names

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> LabeledImage:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[shard - 1]) if shard else 0
        name, content = self.content(shard, index - before)
        image = decode_image(content, name, self.image_size, self._reduced, self._background)
        return LabeledImage(image, self._labels[index])

    def labels(self) -> Sequence[int]:
        """The label of each image."""
        return self._labels


def _class_names(config: ShardsConfig, labels: Sequence[int], where: str) -> list[str]:
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
