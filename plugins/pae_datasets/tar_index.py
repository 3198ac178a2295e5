"""Where the images of tar shards are, and their labels. No torch.

A shard is read as WebDataset writes it: files whose names are equal up to the first dot after the
last slash are one sample, and the rest of the name says what each holds (``0001.jpg``,
``0001.cls``). A shard's index is kept in the user's cache while its size, time and inode stay the
same.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128

from pae_datasets.listing import IMAGE_SUFFIXES
from pae_framework.errors import DataError, WriteError
from pae_framework.system.files import file_problem, replacing

_THREADS = 8
_LONGEST_LABEL = 32
"""Bytes of a file with a label."""
_VERSION = "1"

Array = np.ndarray[Any, np.dtype[Any]]


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
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda path: _index(path, image, label), paths))


def _index(path: Path, image: str | None, label: str) -> ShardIndex:
    if problem := file_problem(path):
        raise DataError(problem)
    try:
        found = path.stat()
        facts = f"{_VERSION} {found.st_size} {found.st_mtime_ns} {found.st_ino} {image} {label}"
        cache = _cache_file(path)
        known = None if cache is None else _read(cache, facts)
        if known is None:
            known = _scan(path, image, label)
            if cache is not None:
                _write(cache, facts, known)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return known


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


# --- the user's cache -----------------------------------------------------------------------------


def _cache_file(path: Path) -> Path | None:
    """Named by the shard; None for a user without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    name = xxh3_128(os.fsencode(path.absolute())).hexdigest()
    return home / "pae_framework" / "tar_index" / f"{name}.npz"


def _read(cache: Path, facts: str) -> ShardIndex | None:
    """The index in a file of the cache; None if there is none, or one of another shard."""
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as content:
            if str(content["facts"]) != facts:
                return None
            index = ShardIndex(*(content[name] for name in ShardIndex.__dataclass_fields__))
    except Exception:  # a damaged file raises errors of many types
        return None
    columns = index.keys, index.offsets, index.sizes, index.labels
    return index if len({column.shape for column in columns}) == 1 else None


def _write(cache: Path, facts: str, index: ShardIndex) -> None:
    with suppress(WriteError), replacing(cache) as unfinished, unfinished.open("wb") as file:
        np.savez(file, facts=np.array(facts), **vars(index))
