"""Sample sets on disk: written in chunks, resumed, and read as mapped memory.

A set is an npz file in the format of the ADM evaluator: ``arr_0`` images (M, S, S, 3) uint8,
``arr_1`` labels (M,) int64, stored without compression. While a set is being sampled, its finished
chunks are in ``<name>.parts/`` with the identity of the set and the evaluations that an adaptive
solver took for each. An interrupted set resumes with the missing chunks.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from pae_framework.contracts import SampleSet
from pae_framework.errors import DataError
from pae_framework.flow.sampling import EvaluationCount
from pae_framework.runs.reading import read_record
from pae_framework.system.background import Background
from pae_framework.system.files import read_json, read_text, replacing, write_json, write_text

CHUNK = 1000
"""Images per chunk; an interruption loses at most one chunk."""
SETS = "sets.json"
"""Lists the finished sets of a stage, each with its ``identity``."""
_IDENTITY = "identity.txt"
_CHUNK_FILES = re.compile(r"\.?(\d{8}\.(npy|json)|identity\.txt)((\.[0-9a-f]+)?\.\d+\.new)?")
"""Names of files in a folder of chunks, including temporary ones."""


class _Set(BaseModel):
    file: str
    generator_step: int
    steps: int
    role: str
    variant: str | None = None
    protocol: dict[str, Any]


class _Counted(BaseModel):
    samples: int
    total: int
    guided: int


SampleImages = Callable[[Tensor], Tensor]
"""Samples images (n, 3, S, S) uint8 from sample numbers (n,)."""


# --- sampling a set -------------------------------------------------------------------------------


def write_set(
    path: Path,
    labels: Tensor,
    sample: SampleImages,
    batch_size: int,
    identity: str,
    chunk_size: int = CHUNK,
) -> Iterator[int]:
    """Sample a set or resume it; yields the number of images done after each batch.

    Args:
        path: of the npz, which is written when all images are done.
        labels: (M,) int64, written into it.
        sample: image i must depend on i alone, so batches and interruptions change nothing.
        batch_size: images sampled at once.
        identity: see :func:`~.reuse.set_identity`. Chunks with another identity are removed.
        chunk_size: images per chunk.

    Raises:
        DataError: the chunks hold images of different sizes.
    """
    chunks = prepare_chunks(path, len(labels), identity, chunk_size)
    for chunk in chunks:
        yield from write_chunk(path, chunk, sample, batch_size)
    join_chunks(path, chunks, labels)
    remove_chunks(path)


def prepare_chunks(path: Path, count: int, identity: str, chunk_size: int = CHUNK) -> list[range]:
    """Create the folder for the chunks of a set and remove chunks with another identity.

    Returns:
        The sample numbers of every chunk of ``count`` images. Several processes may write them.
    """
    remove_other_chunks(path, identity)
    write_text(_chunks_folder(path) / _IDENTITY, identity)
    return split_chunks(count, chunk_size)


def split_chunks(count: int, chunk_size: int = CHUNK) -> list[range]:
    """The sample numbers of every chunk of ``count`` images."""
    return [range(start, min(start + chunk_size, count)) for start in range(0, count, chunk_size)]


def write_chunk(
    path: Path,
    chunk: range,
    sample: SampleImages,
    batch_size: int,
    counted: EvaluationCount | None = None,
) -> Iterator[int]:
    """Sample one chunk of the set ``path`` unless it is complete; yields like :func:`write_set`.

    Args:
        path: of the set.
        chunk: sample numbers.
        sample: see :func:`write_set`.
        batch_size: images sampled at once.
        counted: counts the evaluations of ``sample``, and is kept with the chunk.
    """
    file = _chunk_file(path, chunk)
    has_count = counted is None or _counted(path, chunk) is not None
    if not has_count or not _is_complete(file, len(chunk)):
        first, *others = torch.arange(chunk.start, chunk.stop).split(batch_size)
        images = sample(first)
        with (
            replacing(file, len(chunk) * images[0].nbytes) as temporary,
            temporary.open("wb") as opened,
            Background(partial(_append, opened, images.shape[1:])) as writing,
        ):
            # np.save() hides why it cannot write.
            np.lib.format.write_array_header_1_0(opened, _header(len(chunk), images.shape[2:]))
            writing.start(images)
            yield int(first[-1]) + 1
            for batch in others:
                images = sample(batch)
                writing.take()
                writing.start(images)
                yield int(batch[-1]) + 1
            writing.take()
            if counted is not None:
                write_json(file.with_suffix(".json"), asdict(counted))
    yield chunk.stop


def _header(count: int, size: Sequence[int]) -> dict[str, Any]:
    """The header of ``count`` images of a size (S, S) in NumPy's format."""
    return {"descr": "|u1", "fortran_order": False, "shape": (count, *size, 3)}


def _append(file: BinaryIO, shape: torch.Size, images: Tensor) -> None:
    """Append images (n, 3, S, S) of the shape (3, S, S) to a file of images (M, S, S, 3)."""
    if images.shape[1:] != shape:
        raise DataError(f"images of {tuple(images.shape[1:])} among others of {tuple(shape)}")
    file.write(images.permute(0, 2, 3, 1).contiguous().numpy().data)


def remove_other_chunks(path: Path, identity: str) -> None:
    """Remove the chunks of the set ``path`` if their identity differs or is unknown."""
    folder = _chunks_folder(path)
    try:
        existing = read_text(folder / _IDENTITY)
    except (OSError, UnicodeDecodeError):
        existing = None
    if existing != identity:
        remove_chunks(path)


def are_complete(path: Path, chunks: Sequence[range]) -> bool:
    """Whether all these chunks of the set ``path`` were written."""
    return all(_is_complete(_chunk_file(path, chunk), len(chunk)) for chunk in chunks)


def counted_evaluations(path: Path, chunks: Sequence[range]) -> EvaluationCount | None:
    """The evaluations of the set ``path``, kept with its chunks; None if any are unknown."""
    total = EvaluationCount()
    for chunk in chunks:
        if (counted := _counted(path, chunk)) is None:
            return None
        total.include(counted)
    return total


def _counted(path: Path, chunk: range) -> EvaluationCount | None:
    """The evaluations of one chunk; None if they are unknown."""
    try:
        counted = _Counted.model_validate(read_json(_chunk_file(path, chunk).with_suffix(".json")))
    except (OSError, ValueError):
        return None
    return EvaluationCount(**counted.model_dump()) if counted.samples == len(chunk) else None


def _chunks_folder(path: Path) -> Path:
    return path.with_suffix(".parts")


def _chunk_file(path: Path, chunk: range) -> Path:
    return _chunks_folder(path) / f"{chunk.start:08d}.npy"


def remove_chunks(path: Path) -> None:
    """Remove the chunks of the set ``path``, and their folder unless it contains other files."""
    folder = _chunks_folder(path)
    for file in folder.iterdir() if folder.is_dir() else ():
        if _CHUNK_FILES.fullmatch(file.name):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


def _is_complete(file: Path, count: int) -> bool:
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return images.dtype == np.uint8 and images.ndim == 4 and images.shape[::3] == (count, 3)


def join_chunks(path: Path, chunks: Sequence[range], labels: Tensor) -> None:
    """Write the npz of the labels (M,) and the chunks, with one chunk in memory at a time.

    Raises:
        DataError: the chunks hold images of different sizes.
    """
    files = [_chunk_file(path, chunk) for chunk in chunks]
    size = np.load(files[0], mmap_mode="r").shape[1:]
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                cast(BinaryIO, member), _header(len(labels), size[:2])
            )
            for file in files:
                images = np.load(file)
                if images.shape[1:] != size:
                    raise DataError(f"{file} holds images of {images.shape[1:]}, others of {size}")
                member.write(images.data)
        with archive.open("arr_1.npy", "w") as member:
            np.lib.format.write_array(cast(BinaryIO, member), labels.numpy())


# --- reading a set --------------------------------------------------------------------------------


def read_sets(file: Callable[[str], Path]) -> list[SampleSet]:
    """The finished sets of a sample stage, with images in mapped memory.

    Args:
        file: the checked path of a file of the stage, by its name.

    Raises:
        RunError: a file is missing, damaged or not the one that the stage wrote.
        DataError: a file is not a sample set.
    """
    sets = []
    for entry in read_entries(file(SETS)):
        images, labels = open_set(file(entry["file"]))
        facts = {key: entry[key] for key in ("generator_step", "steps", "role", "protocol")}
        sets.append(SampleSet(images, labels, **facts, variant=entry.get("variant")))
    return sets


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The entries of a :data:`SETS`.

    Raises:
        RunError: the file is missing or damaged.
    """
    remedy = "run the stage again with --again sample"
    entries: list[dict[str, Any]] = read_record(path, list[_Set], remedy)
    return entries


def open_set(path: Path) -> tuple[Tensor, Tensor]:
    """Images (M, 3, S, S) uint8, memory-mapped if stored uncompressed, and labels (M,).

    Raises:
        DataError: the file is damaged or is not a sample set.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            images = _array(path, archive, "arr_0.npy")
            labels = _array(path, archive, "arr_1.npy")
    except Exception as error:  # damaged archives and headers fail in many ways
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: not a readable sample set: {reason}") from error
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != 3:
        raise DataError(
            f"{path}: arr_0 is {images.shape} {images.dtype}; expected (M, S, S, 3) uint8"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: arr_1 is {labels.shape} {labels.dtype}; expected ({len(images)},) of integers"
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(np.array(labels))


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    entry = archive.getinfo(name)
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(cast(BinaryIO, member))
        if version != (1, 0) or entry.compress_type != zipfile.ZIP_STORED:
            with np.load(path, allow_pickle=False) as file:
                return file[name.removesuffix(".npy")]
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(cast(BinaryIO, member))
        header = member.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # the zip entry's own header ends with two lengths
        name_length, extra_length = struct.unpack("<HH", file.read(4))
    start = entry.header_offset + 30 + name_length + extra_length + header
    # Copy on write: torch warns about memory that cannot be written.
    return np.memmap(
        path, dtype, mode="c", offset=start, shape=shape, order="F" if fortran else "C"
    )
