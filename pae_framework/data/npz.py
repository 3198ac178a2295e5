"""Arrays in npz files: checked by their headers, and images streamed from the zip member."""

from __future__ import annotations

import weakref
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.system.files import file_digest, file_problem

IMAGES_ARRAY = "arr_0"
"""The array of images in files for the ADM evaluator: the first argument of ``np.savez``."""


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and type of an array in a file; ``fortran``: its first index varies fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


def array_headers(path: Path) -> dict[str, ArrayHeader]:
    """The arrays of an npz file by name; reads only their headers.

    Raises:
        DataError: the file is missing, damaged, or no npz file.
    """
    if problem := file_problem(path):
        raise DataError(problem)
    if not zipfile.is_zipfile(path):
        raise DataError(_not_a_zip(path))
    with _reading(path), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): _header(archive, name) for name in names}


def read_array(path: Path, name: str) -> np.ndarray:
    """Read one array of an npz file as a whole.

    Raises:
        DataError: it is damaged, or holds Python objects.
    """
    with _reading(path), np.load(path, allow_pickle=False) as file:
        array: np.ndarray = file[name]
        return array


def images_problem(headers: Mapping[str, ArrayHeader]) -> str | None:
    """Why the arrays of a file are no images, and what to do; None if they are."""
    found = headers.get(IMAGES_ARRAY)
    if found is None:
        names = ", ".join(headers) or "no array"
        return f"has no array {IMAGES_ARRAY} (found: {names}); save it with np.savez(file, images)"
    others = [name for name, header in headers.items() if len(header.shape) == 4]
    if len(found.shape) < 3 and others:
        return (
            f"has labels first: {IMAGES_ARRAY} is {found}, {others[0]} is {headers[others[0]]}; "
            "save the images first: np.savez(file, images, labels)"
        )
    remedies = [*_shape_remedies(found), *_type_remedies(found)]
    if not remedies and 0 in found.shape:
        remedies = ["store at least one image"]
    if not remedies:
        return None
    return f"{IMAGES_ARRAY} is {found}, expected (N, H, W, 3) uint8: {'; '.join(remedies)}"


def _shape_remedies(found: ArrayHeader) -> Iterator[str]:
    shape = found.shape
    if len(shape) == 4 and shape[3] == 3:
        if found.fortran:
            yield "store it in C order, with np.ascontiguousarray(x)"
    elif len(shape) == 4 and shape[1] == 3:
        yield "move the channels last, with x.transpose(0, 2, 3, 1)"
    elif len(shape) == 4 and 1 in (shape[1], shape[3]):
        axis = 3 if shape[3] == 1 else 1
        last = "" if axis == 3 else ".transpose(0, 2, 3, 1)"
        yield f"repeat the gray channel, with x.repeat(3, {axis}){last}"
    elif len(shape) == 4 and 4 in (shape[1], shape[3]):
        yield "remove the alpha channel"
    elif len(shape) == 3 and shape[2] != 3:
        yield "repeat the gray channel, with np.stack([x] * 3, 3)"
    else:
        yield "store one array of RGB images, with the channels last"


def _type_remedies(found: ArrayHeader) -> Iterator[str]:
    if found.dtype == np.uint8:
        return
    if found.dtype.kind == "f":
        yield (
            "convert it to uint8, with (255 * x.clip(0, 1)).astype(np.uint8) if it is in [0, 1]; "
            "the formula is part of what is measured"
        )
    elif found.dtype.kind in "iu":
        yield "convert it with x.astype(np.uint8) if its values are 0 to 255"
    else:
        yield "convert it to uint8, 0 to 255"


class NpzImages:
    """Images of an npz file in the format of the ADM evaluator, read without loading all.

    Compressed files are read in order; going back starts over.

    Raises:
        DataError: the file is missing or damaged, or does not hold images; says what to do.
    """

    crop = "none"
    formats = "npz"

    def __init__(self, path: Path):
        self.path = path
        headers = array_headers(path)
        if problem := images_problem(headers):
            raise DataError(f"{path} {problem}")
        self._count, *shape = headers[IMAGES_ARRAY].shape
        self._shape = tuple(shape)
        opened = path.open("rb")
        weakref.finalize(self, opened.close)
        self._archive = zipfile.ZipFile(opened)
        self._member: IO[bytes] | None = None
        self._start = self._next = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file anew."""
        return NpzImages, (self.path.absolute(),)

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self._shape[0], self._shape[1]

    def __len__(self) -> int:
        return self._count

    def identity(self) -> str:
        """XXH3 digest of the file."""
        return file_digest(self.path)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images (B, 3, H, W) uint8 at ascending indices.

        Raises:
            DataError: the file is damaged or shorter than its header says.
        """
        images = np.empty((len(indices), *self._shape), np.uint8)
        with _reading(self.path):
            for image, index in zip(images, indices, strict=True):
                data = self._bytes(index, image.nbytes)
                image[...] = np.frombuffer(data, np.uint8).reshape(self._shape)
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def _bytes(self, index: int, size: int) -> bytes:
        if self._member is None or index < self._next:
            self._member = self._archive.open(f"{IMAGES_ARRAY}.npy")
            _read_header(self._member)
            self._start, self._next = self._member.tell(), 0
        if index != self._next:
            self._member.seek(self._start + index * size)
        data = self._member.read(size)
        if len(data) < size:
            raise EOFError(f"it ends in image {index} of {len(self)}")
        self._next = index + 1
        return data


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged archives and headers fail in many ways
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is damaged ({reason}); copy or write it again") from error


def _header(archive: zipfile.ZipFile, name: str) -> ArrayHeader:
    with archive.open(name) as member:
        return _read_header(member)


def _read_header(member: IO[bytes]) -> ArrayHeader:
    file = cast(BinaryIO, member)
    version = np.lib.format.read_magic(file)
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    # A vector has both orders.
    return ArrayHeader(shape, dtype, fortran and sum(side > 1 for side in shape) > 1)


def _not_a_zip(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        return f"{path} is cut off: it begins as an npz file, but has no end; copy it again"
    if start == b"\x93NUMPY":
        return f"{path} is a single array; save it with np.savez(file, images)"
    return f"{path} is no npz file"
