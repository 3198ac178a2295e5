"""Files in MNIST's format."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from pae_datasets.arrays import GrayArrays, pad_gray, resize_gray
from pae_datasets.config import IdxConfig
from pae_datasets.layout import find_idx_files
from pae_framework.errors import DataError
from pae_framework.system.files import file_problem

_UINT8 = 0x08
_BLOCK = 1 << 20
"""Bytes read at once."""
_MOST_GZIP = 1032
"""Most bytes that one byte of a gzip file can stand for."""
_SHOWN_LABELS = 12


class Idx(GrayArrays):
    """Gray images and labels from a pair of idx files."""

    def __init__(self, config: IdxConfig, image_size: int):
        files = find_idx_files(config.folders, config.split)
        if isinstance(files, str):
            raise DataError(files)
        images, labels = read_pair(*files)  # (M, H, H), (M,)
        names = _class_names(config, labels, files[1])
        images, labels = images[: config.limit], labels[: config.limit]
        images = _fit(images, image_size, config.fit)  # (M, S, S)
        super().__init__(config, images, labels, names, config.mask_threshold)


def read_pair(image_file: Path, label_file: Path) -> tuple[Tensor, Tensor]:
    """Read square images (M, H, H) uint8 and their labels (M,) int64.

    Raises:
        DataError: a file is damaged, images are not square, or counts differ.
    """
    images, labels = read_idx(image_file, dimensions=3), read_idx(label_file, dimensions=1)
    if len(images) != len(labels):
        raise DataError(
            f"{image_file} has {len(images)} images, but {label_file} has {len(labels)} labels"
        )
    if not images.numel() or images.shape[1] != images.shape[2]:
        raise DataError(f"{image_file}: expected square images, found {tuple(images.shape)}")
    return images, labels.long()


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read the uint8 array of an idx file, plain or ``.gz``, in the shape of its header.

    Layout (LeCun's MNIST page): two zero bytes, a type byte (8: uint8), the number of dimensions,
    then each dimension as a big-endian 32-bit number, then the bytes. No more is read, and no more
    memory used, than the header says and the file can hold.

    Raises:
        DataError: the file is damaged or of another type; names it.
    """
    if problem := file_problem(path):
        raise DataError(problem)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            stream = cast(BinaryIO, file)
            shape = _read_header(stream, path, dimensions)
            return torch.from_numpy(_read_values(stream, path, shape))
    except MemoryError as error:
        raise DataError(f"{path}: there is not enough memory to read it") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read_header(file: BinaryIO, path: Path, dimensions: int) -> tuple[int, ...]:
    expected = bytes([0, 0, _UINT8, dimensions])
    header = file.read(4 + 4 * dimensions)
    if header[:4] != expected:
        raise DataError(
            f"{path}: not an idx file of {dimensions}-dimensional uint8: begins with "
            f"{header[:4].hex() or 'nothing'}, expected {expected.hex()}"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path}: truncated in its header, after {len(header)} bytes")
    return struct.unpack(f">{dimensions}I", header[4:])


def _read_values(file: BinaryIO, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    count, size = math.prod(shape), path.stat().st_size
    stated = f"{path}: damaged: its header says {count} bytes ({' x '.join(map(str, shape))}), but"
    zipped = path.suffix == ".gz"
    held = size - (4 + 4 * len(shape))
    if not zipped and held != count:
        raise DataError(f"{stated} it has {held}")
    if zipped and count > size * _MOST_GZIP:
        raise DataError(f"{stated} {size} bytes of gzip cannot hold them")
    values = np.empty(count, np.uint8)
    found = 0
    while read := file.readinto(values[found : found + _BLOCK]):  # type: ignore[attr-defined]
        found += read
    if found < count:
        raise DataError(f"{stated} it has {found}")
    if file.read(1):  # also makes gzip verify its checksum
        raise DataError(f"{stated} it has more")
    return values.reshape(shape)


def _class_names(config: IdxConfig, labels: Tensor, label_file: Path) -> list[str]:
    count = int(labels.max()) + 1
    if config.class_names is None:
        _require_no_gap(labels.bincount().tolist(), label_file)
        return [str(label) for label in range(count)]
    if len(config.class_names) < count:
        raise DataError(
            f"{label_file} has labels up to {count - 1}, "
            f"but `class_names` has {len(config.class_names)} names"
        )
    return list(config.class_names)


def _require_no_gap(counts: list[int], label_file: Path) -> None:
    """Without names of classes, a label that only a damaged byte holds would invent classes."""
    if all(counts):
        return
    found = [f"{label}: {count}" for label, count in enumerate(counts) if count]
    shown = ", ".join(found[:_SHOWN_LABELS]) + (", ..." if len(found) > _SHOWN_LABELS else "")
    raise DataError(
        f"{label_file} has labels up to {len(counts) - 1}, but {counts.count(0)} of them have no "
        f"image (images by label: {shown}, last {found[-1]}); repair the file, or set `class_names`"
    )


def _fit(images: Tensor, size: int, fit: str | None) -> Tensor:
    side = images.shape[-1]
    if fit is None:
        fit = "pad" if side <= size <= side * 1.25 else "resize"
    if fit == "pad" and side > size:
        raise DataError(f"fit=pad cannot shrink images of {side} px to {size} px; set fit=resize")
    return pad_gray(images, size) if fit == "pad" else resize_gray(images, size)
