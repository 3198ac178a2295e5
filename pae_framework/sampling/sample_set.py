"""Sets of drawn images on disk: made part by part, read without filling the memory.

A set is an npz file as the ADM evaluator reads it: ``arr_0`` images (M, S, S, 3) uint8, ``arr_1``
labels (M,) int64, stored without compression. While it is drawn, finished parts lie beside it in
``<name>.parts/``, with the identity of what is drawn; a drawing of the same that was interrupted
goes on after the last of them.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.files import replacing, write_text

PART = 1000
"""Images per part: what an interruption can lose."""
IDENTITY = "identity.txt"
_OURS = re.compile(r"\.?(\d{8}\.npy|identity\.txt)(\.\d+\.new)?")
"""Names of files in a folder of parts, and of those not yet written whole."""

Draw = Callable[[Tensor], Tensor]
"""Images (n, 3, S, S) uint8 of sample numbers (n,)."""


def draw_set(
    path: Path, labels: Tensor, draw: Draw, batch_size: int, identity: str
) -> Iterator[int]:
    """Draw a set, or go on drawing it; yields how many images there are, batch after batch.

    Args:
        path: of the npz, which appears when all images are there.
        labels: (M,) int64, written into it.
        draw: image i must depend on i alone, so that batches and interruptions change nothing.
        batch_size: images drawn at once.
        identity: one line that tells what is drawn from all else that might be drawn here; parts of
            something else are removed.

    Raises:
        DataError: the parts hold images of several sizes.
    """
    parts = begin_parts(path, len(labels), identity)
    for part in parts:
        yield from draw_part(path, part, draw, batch_size)
    _join(path, [_part_file(path, part) for part in parts], labels)
    _remove_parts(_parts_folder(path))


def begin_parts(path: Path, count: int, identity: str) -> list[range]:
    """Make the folder of a set's parts, with none of something else in it.

    Returns:
        Sample numbers of every part of ``count`` images. Each may be drawn by a process of its own
        before :func:`draw_set`, which takes those that are there.
    """
    drop_other_parts(path, identity)
    write_text(_parts_folder(path) / IDENTITY, identity)
    return [range(start, min(start + PART, count)) for start in range(0, count, PART)]


def draw_part(path: Path, part: range, draw: Draw, batch_size: int) -> Iterator[int]:
    """Draw one part of the set ``path``, unless it is there; yields like :func:`draw_set`."""
    file = _part_file(path, part)
    if not _is_whole(file, len(part)):
        drawn: list[Tensor] = []
        for batch in torch.arange(part.start, part.stop).split(batch_size):
            drawn.append(draw(batch))
            yield int(batch[-1]) + 1
        with replacing(file) as aside, aside.open("wb") as opened:
            np.save(opened, torch.cat(drawn).permute(0, 2, 3, 1).contiguous().numpy())
    yield part.stop


def drop_other_parts(path: Path, identity: str) -> None:
    """Remove parts beside ``path`` that were drawn under another identity, or under none."""
    folder = _parts_folder(path)
    try:
        found = (folder / IDENTITY).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        found = None
    if found != identity and folder.is_dir():
        _remove_parts(folder)


def open_set(path: Path) -> tuple[Tensor, Tensor]:
    """Images (M, 3, S, S) uint8, in mapped memory where the file allows it, and labels (M,).

    Raises:
        DataError: the file is damaged or no such set.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            images = _array(path, archive, "arr_0.npy")
            labels = _array(path, archive, "arr_1.npy")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable set of images: {error}") from error
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != 3:
        raise DataError(
            f"{path}: arr_0 is {images.shape} {images.dtype}; expected (M, S, S, 3) uint8"
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(np.array(labels))


def _parts_folder(path: Path) -> Path:
    return path.with_suffix(".parts")


def _part_file(path: Path, part: range) -> Path:
    return _parts_folder(path) / f"{part.start:08d}.npy"


def _remove_parts(folder: Path) -> None:
    """Remove the parts and their folder, unless someone else's files are in it."""
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


def _is_whole(part: Path, count: int) -> bool:
    """Whether a part is there, readable, and holds ``count`` images."""
    try:
        found = np.load(part, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    whole: bool = found.dtype == np.uint8 and found.ndim == 4 and found.shape[::3] == (count, 3)
    return whole


def _join(path: Path, parts: list[Path], labels: Tensor) -> None:
    """Write the npz from its parts, holding one of them at a time."""
    size = np.load(parts[0], mmap_mode="r").shape[1:]
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *size)}
    with replacing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(cast(BinaryIO, member), header)
            for part in parts:
                images = np.load(part)
                if images.shape[1:] != size:
                    raise DataError(f"{part} holds images of {images.shape[1:]}, others of {size}")
                member.write(images.data)
        with archive.open("arr_1.npy", "w") as member:
            np.lib.format.write_array(cast(BinaryIO, member), labels.numpy())


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz, mapped where it is stored as it is in memory, else read."""
    entry = archive.getinfo(name)
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(cast(BinaryIO, member))
        if version != (1, 0) or entry.compress_type != zipfile.ZIP_STORED:
            with np.load(path, allow_pickle=False) as file:
                return file[name.removesuffix(".npy")]
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(cast(BinaryIO, member))
        before = member.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # of the zip entry's own header: two lengths
        name_length, extra_length = struct.unpack("<HH", file.read(4))
    start = entry.header_offset + 30 + name_length + extra_length + before
    # Copy on write: torch would warn of memory that cannot be written.
    return np.memmap(
        path, dtype, mode="c", offset=start, shape=shape, order="F" if fortran else "C"
    )
