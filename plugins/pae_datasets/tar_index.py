"""Where the images of tar shards are, and their labels. No torch.

A shard is read as WebDataset writes it: files whose names are equal up to the first dot after the
last slash are one sample, and the rest of the name says what each holds (``0001.jpg``,
``0001.cls``).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pae_datasets.index_cache import Array, IndexCache
from pae_datasets.listing import IMAGE_SUFFIXES
from pae_framework.errors import DataError

_LONGEST_LABEL = 32
"""Bytes of a file with a label."""
_VERSION = "1"


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one shard in the order of the file; all arrays are (M,)."""

    keys: Array
    """Names of the samples, as bytes."""
    offsets: Array
    """First byte of each image in the shard, int64."""
    sizes: Array
    """Bytes of each image, int64."""
    labels: Array
    """int64, at least 0."""

    def __len__(self) -> int:
        return len(self.labels)


def index_shards(paths: Sequence[Path], image: str | None, label: str) -> list[ShardIndex]:
    """The index of each shard, from the user's cache where it is known.

    Args:
        paths: the shards.
        image: extension of the images; None: any format that Pillow reads.
        label: extension of the files that hold the label as a number.

    Raises:
        DataError: a shard cannot be read, or a sample lacks its image or label; names it.
    """
    cache = IndexCache(
        ShardIndex,
        "tar_index",
        _VERSION,
        f"{image} {label}",
        lambda path: _scan(path, image, label),
    )
    return cache.of(paths)


def _scan(path: Path, image: str | None, label: str) -> ShardIndex:
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:  # not compressed, so that images can be found
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                if not stem:  # hidden
                    continue
                key = f"{folder}/{stem}" if folder else stem
                sample = samples.setdefault(key, _Sample())
                if extension.lower() == label:
                    sample.add_label(f"{path}/{member.name}", tar, member)
                elif _is_image(extension.lower(), image):
                    sample.add_image(f"{path}/{member.name}", member)
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a readable tar file without compression: {error}") from error
    rows = [sample.row(f"{path}/{key}", image, label) for key, sample in samples.items()]
    columns = np.array(rows, np.int64).reshape(-1, 3).T  # (3, M)
    return ShardIndex(np.array([os.fsencode(key) for key in samples], bytes), *columns)


def _is_image(extension: str, image: str | None) -> bool:
    return f".{extension}" in IMAGE_SUFFIXES if image is None else extension == image


@dataclass
class _Sample:
    image: tuple[int, int] | None = None
    label: int | None = None

    def add_image(self, name: str, member: tarfile.TarInfo) -> None:
        if self.image is not None:
            raise DataError(
                f"{name}: the second image of its sample; set `image` to the extension to read"
            )
        self.image = member.offset_data, member.size

    def add_label(self, name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if self.label is not None:
            raise DataError(f"{name}: the second label of its sample")
        file = tar.extractfile(member)
        content = file.read(_LONGEST_LABEL + 1) if file else b""
        text = content.decode("ascii", "replace").strip()
        if len(content) > _LONGEST_LABEL or not text.isdecimal() or int(text) >= 1 << 31:
            raise DataError(
                f"{name}: not the number of a class: {ascii(text[:_LONGEST_LABEL])[1:-1]!r}"
            )
        self.label = int(text)

    def row(self, name: str, image: str | None, label: str) -> tuple[int, int, int]:
        """Offset, size, label."""
        if self.image is None:
            raise DataError(f"{name}: a sample without image (.{image or 'jpg, .png, ...'})")
        if self.label is None:
            raise DataError(f"{name}: a sample without label (.{label})")
        return *self.image, self.label
