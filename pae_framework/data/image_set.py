"""A set of images to measure, from wherever it comes; folders of images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pae_framework.data.contents import cached_contents
from pae_framework.data.image_files import open_image, upright_rgb, upright_size
from pae_framework.data.image_names import IMAGE_SUFFIXES
from pae_framework.data.images import read_image
from pae_framework.errors import DataError

_THREADS = 8
_NUMBER = re.compile(r"(\d+)")


class ImageSet(Protocol):
    """Images of one size in a fixed order."""

    @property
    def name(self) -> str:
        """Where they come from, for messages and protocols."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""

    @property
    def crop(self) -> str:
        """How they were cropped and resized when they are read."""

    @property
    def formats(self) -> str:
        """The formats of their files."""

    def __len__(self) -> int:
        """Number of images."""

    def identity(self) -> str:
        """Digest of their contents."""

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images (B, 3, H, W) uint8 at ascending indices.

        Raises:
            DataError: an image cannot be read; names the file.
        """


class FolderImages:
    """The images in a folder and the folders below it, with numbers in names in their order.

    Args:
        root: the folder.
        side: images are center-cropped to this side in px as ADM does it; None: they are read as
            they are, and must have one size.

    Raises:
        DataError: there is no image, an image cannot be read, or the sizes differ.
    """

    def __init__(self, root: Path, side: int | None = None):
        self.root, self.side = root, side
        self.left_out = 0
        try:
            self._names = sorted(self._listed(), key=_natural)
        except OSError as error:
            raise DataError(f"{root} cannot be listed: {error.strerror}") from error
        if not self._names:
            raise DataError(f"{root} contains no image, in it or in the folders below it")
        if side is None:
            self._require_one_size()

    def _listed(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.root, onerror=_raise, followlinks=False):
            folders[:] = [name for name in folders if not name.startswith(".")]
            if links := [name for name in folders if Path(folder, name).is_symlink()]:
                raise DataError(
                    f"{Path(folder, links[0])} is a link to a folder, which is not followed; give "
                    "the folders themselves, or links to the images"
                )
            for name in names:
                path = Path(folder, name)
                if name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
                    self.left_out += 1
                else:
                    yield path.relative_to(self.root).as_posix()

    def _require_one_size(self) -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            sizes = list(pool.map(upright_size, map(self.root.joinpath, self._names)))
        for name, size in zip(self._names, sizes, strict=True):
            if size != sizes[0]:
                raise DataError(
                    f"{self.root} contains images of different sizes ({self._names[0]}: "
                    f"{_by(sizes[0])}, {name}: {_by(size)} px); crop them with --size"
                )

    @property
    def name(self) -> str:
        """The path."""
        return str(self.root)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return (self.side, self.side) if self.side else upright_size(self.root / self._names[0])

    @property
    def crop(self) -> str:
        """ADM's center crop, or none."""
        return f"ADM center crop to {self.side} px" if self.side else "none"

    @property
    def formats(self) -> str:
        """Suffixes of the files, each with its count."""
        counts = Counter(Path(name).suffix.lower()[1:] for name in self._names)
        return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())

    def __len__(self) -> int:
        return len(self._names)

    def identity(self) -> str:
        """XXH3 digest of names and contents of the files, in the order of the images."""
        width = len(str(len(self)))
        files = {f"{n:0{width}d}": self.root / name for n, name in enumerate(self._names)}
        return cached_contents(files).identity

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images (B, 3, H, W) uint8 at the indices.

        Raises:
            DataError: a file is damaged, or has another size than before.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            return torch.stack(list(pool.map(self._read, indices)))

    def _read(self, index: int) -> Tensor:
        path = self.root / self._names[index]
        if self.side is not None:
            return read_image(path, self.side)
        with open_image(path) as image:
            pixels = torch.from_numpy(np.array(upright_rgb(image, path))).permute(2, 0, 1)
        if pixels.shape[1:] != self.size:
            raise DataError(
                f"{path} has {_by(tuple(pixels.shape[1:]))} px, the first image {_by(self.size)} px"
            )
        return pixels


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``9.png`` before ``10.png``."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in _NUMBER.split(name)]


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]}"


def _raise(error: OSError) -> None:
    raise error
