"""Decoded and cropped images of a folder, in one file of the user's cache.

Image i has a record of fixed length at place i: a digest, notes about the file, pixels. The digest
covers the pixels and all that they depend on: name, size, times and inode of the file, and how it
is read. So a record that is missing, half written, or of another file is never taken for the image,
and processes share a cache without locks: whoever lacks an image decodes it and writes its record.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor
from xxhash import xxh3_128

from pae_framework.data.data_settings import Background
from pae_framework.data.image_notes import NOTES
from pae_framework.data.images import read_image
from pae_framework.system.user_cache import user_cache

_VERSION = 1
"""Raise it when the same file gives other pixels."""
_DIGEST = 16
_NOTES = 240
"""Bytes of a record for notes, filled with zeros."""
_RECENT_NS = 2_000_000_000
"""File systems may give two changes within this time the same time stamp."""
_GIB = 1 << 30


class ImageCache:
    """The cache of the images of one folder, or of some of them.

    Args:
        root: the folder.
        selection: which of its images are meant; each selection has its own file.
        count: number of images.
        side: side S of the images in px.
        reduced: see :func:`~pae_framework.data.images.read_image`.
        background: likewise.
        limit: largest size of the whole cache in GiB; a folder that needs more is not cached.
    """

    def __init__(
        self,
        root: Path,
        selection: str,
        count: int,
        side: int,
        reduced: bool,
        background: Background,
        limit: float,
    ):
        self._root, self._side = root, side
        self._read = partial(read_image, size=side, reduced=reduced, background=background)
        self._how = f"{_VERSION} {PIL.__version__} {side} {reduced} {background}"
        self._length = _DIGEST + _NOTES + 3 * side * side
        name = xxh3_128(os.fsencode(f"{root.absolute()}\0{selection}\0{self._how}")).hexdigest()
        self._file = _file_with_room(f"{name}.images", count * self._length, limit)

    def image(self, index: int, name: str) -> Tensor:
        """Image (3, S, S) uint8 at ``index``, of the file with this name in the folder.

        Raises:
            DataError: it is not in the cache and cannot be read; names the file.
        """
        path = self._root / name
        facts = self._facts(path, name)
        if self._file is None or facts is None:
            return self._read(path)
        if (image := self._cached(index, facts, path)) is not None:
            return image
        notes: list[str] = []
        image = self._read(path, note=lambda note, _: notes.append(note))
        for note in notes:
            NOTES.add(note, path)
        self._keep(index, facts, "\n".join(notes), image)
        return image

    def _facts(self, path: Path, name: str) -> bytes | None:
        """What the pixels depend on; None for a file that may change without a new time stamp."""
        try:
            found = os.stat(path)  # noqa: PTH116 - for every image
        except OSError:
            return None  # reading it says why
        if time.time_ns() - found.st_ctime_ns < _RECENT_NS:
            return None
        same = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
        return os.fsencode(f"{self._how}\0{name}\0{same}\0")

    def _cached(self, index: int, facts: bytes, path: Path) -> Tensor | None:
        assert self._file is not None
        try:
            with self._file.open("rb", buffering=0) as file:
                record = os.pread(file.fileno(), self._length, index * self._length)
        except OSError:
            return None
        digest, content = record[:_DIGEST], record[_DIGEST:]
        if digest != xxh3_128(facts + content).digest():
            return None
        for note in filter(None, content[:_NOTES].rstrip(b"\0").decode().split("\n")):
            NOTES.add(note, path)
        pixels = np.frombuffer(bytearray(content[_NOTES:]), np.uint8)
        return torch.from_numpy(pixels).view(3, self._side, self._side)

    def _keep(self, index: int, facts: bytes, notes: str, image: Tensor) -> None:
        assert self._file is not None
        written = notes.encode()
        if len(written) > _NOTES:
            return
        content = written.ljust(_NOTES, b"\0") + image.contiguous().numpy().tobytes()
        record = xxh3_128(facts + content).digest() + content
        try:
            descriptor = os.open(self._file, os.O_WRONLY)
            try:
                os.pwrite(descriptor, record, index * self._length)
            finally:
                os.close(descriptor)
        except OSError as error:  # the cache only saves time
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a training needs the space
                with suppress(OSError):
                    self._file.unlink()
                self._file = None
            elif error.errno == errno.ENOENT:  # another process has removed it
                self._file = None


def _file_with_room(name: str, size: int, limit: float) -> Path | None:
    """A file of the cache for ``size`` bytes; None if they do not fit.

    Older files are removed as long as the whole cache would exceed the limit.
    """
    home = user_cache()
    if home is None or size > limit * _GIB:
        return None
    folder = home / "images"
    file = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists():
            os.utime(file)
        elif size > shutil.disk_usage(folder).free / 2:
            return None
        else:
            file.touch()
        others = {path: path.stat() for path in folder.glob("*.images") if path != file}
        total = size + sum(found.st_size for found in others.values())
        for path in sorted(others, key=lambda path: others[path].st_mtime_ns):
            if total <= limit * _GIB:
                break
            path.unlink()
            total -= others[path].st_size
    except OSError:
        return None
    return file
