"""Sample sets on disk: sampled in chunks, resumed, reused, and read without filling the memory.

A set is an npz file as the ADM evaluator reads it: ``arr_0`` images (M, S, S, 3) uint8, ``arr_1``
labels (M,) int64, stored without compression. While it is being sampled, finished chunks of it lie
in ``<name>.parts/`` together with the identity of the set. An interrupted set resumes after the
last finished chunk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from pae_framework.contracts import SampleSet
from pae_framework.data.statistics import SAFE_NAME
from pae_framework.errors import DataError
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import tokenizer_identity
from pae_framework.files import file_identity, read_json, replacing, write_text
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.stage_table import STAGES, generator_weights

CHUNK = 1000
"""Images per chunk: the most that an interruption can lose."""
SETS = "sets.json"
"""Lists the finished sets of a stage, each with its ``identity``."""
COUNTED = ("evaluations", "guided_evaluations")
"""Protocol entries that an adaptive solver knows only after sampling."""
_IDENTITY = "identity.txt"
_CHUNK_FILES = re.compile(r"\.?(\d{8}\.npy|identity\.txt)(\.\d+\.new)?")
"""Names of files in a folder of chunks, also of those that are still being written."""
_NOT_HASHED = SampleSettings.without_effect | {"count", "labels", "at_steps", "few_steps"}
"""Settings that change no image; the labels themselves contain the first two."""

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
        path: of the npz, which appears when all images are done.
        labels: (M,) int64, written into it.
        sample: image i must depend on i alone, so that batches and interruptions change nothing.
        batch_size: images sampled at once.
        identity: one line, see :func:`set_identity`. Chunks with another identity are removed.
        chunk_size: images per chunk.

    Raises:
        DataError: the chunks hold images of different sizes.
    """
    chunks = prepare_chunks(path, len(labels), identity, chunk_size)
    for chunk in chunks:
        yield from write_chunk(path, chunk, sample, batch_size)
    _join(path, [_chunk_file(path, chunk) for chunk in chunks], labels)
    _remove_chunks(_chunks_folder(path))


def prepare_chunks(path: Path, count: int, identity: str, chunk_size: int = CHUNK) -> list[range]:
    """Make the folder for the chunks of a set and remove chunks with another identity.

    Returns:
        The sample numbers of every chunk of ``count`` images. Several processes may write them
        before :func:`write_set`, which then only joins them.
    """
    remove_other_chunks(path, identity)
    write_text(_chunks_folder(path) / _IDENTITY, identity)
    return [range(start, min(start + chunk_size, count)) for start in range(0, count, chunk_size)]


def write_chunk(path: Path, chunk: range, sample: SampleImages, batch_size: int) -> Iterator[int]:
    """Sample one chunk of the set ``path`` unless it is complete; yields like :func:`write_set`."""
    file = _chunk_file(path, chunk)
    if not _is_complete(file, len(chunk)):
        sampled: list[Tensor] = []
        for batch in torch.arange(chunk.start, chunk.stop).split(batch_size):
            sampled.append(sample(batch))
            yield int(batch[-1]) + 1
        images = torch.cat(sampled).permute(0, 2, 3, 1)  # (n, S, S, 3)
        with replacing(file) as aside, aside.open("wb") as opened:
            np.save(opened, images.contiguous().numpy())
    yield chunk.stop


def remove_other_chunks(path: Path, identity: str) -> None:
    """Remove the chunks of the set ``path`` if their identity differs or is unknown."""
    folder = _chunks_folder(path)
    try:
        found = (folder / _IDENTITY).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        found = None
    if found != identity and folder.is_dir():
        _remove_chunks(folder)


def _chunks_folder(path: Path) -> Path:
    return path.with_suffix(".parts")


def _chunk_file(path: Path, chunk: range) -> Path:
    return _chunks_folder(path) / f"{chunk.start:08d}.npy"


def _remove_chunks(folder: Path) -> None:
    """Remove the chunks, and their folder unless it holds other files."""
    for file in folder.iterdir():
        if _CHUNK_FILES.fullmatch(file.name):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


def _is_complete(file: Path, count: int) -> bool:
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    complete: bool = found.dtype == np.uint8 and found.ndim == 4 and found.shape[::3] == (count, 3)
    return complete


def _join(path: Path, files: list[Path], labels: Tensor) -> None:
    """Write the npz from its chunks, with one chunk in memory at a time."""
    size = np.load(files[0], mmap_mode="r").shape[1:]
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *size)}
    with replacing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(cast(BinaryIO, member), header)
            for file in files:
                images = np.load(file)
                if images.shape[1:] != size:
                    raise DataError(f"{file} holds images of {images.shape[1:]}, others of {size}")
                member.write(images.data)
        with archive.open("arr_1.npy", "w") as member:
            np.lib.format.write_array(cast(BinaryIO, member), labels.numpy())


# --- reading a set --------------------------------------------------------------------------------


def read_sets(directory: Path) -> list[SampleSet]:
    """The finished sets of a sample stage, their images in mapped memory."""
    sets = []
    for entry in read_json(directory / SETS):
        images, labels = open_set(directory / entry["file"])
        facts = {key: entry[key] for key in ("generator_step", "steps", "role", "protocol")}
        sets.append(SampleSet(images, labels, **facts))
    return sets


def open_set(path: Path) -> tuple[Tensor, Tensor]:
    """Images (M, 3, S, S) uint8, in mapped memory if the file allows it, and labels (M,).

    Raises:
        DataError: the file is damaged or is not a sample set.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            images = _array(path, archive, "arr_0.npy")
            labels = _array(path, archive, "arr_1.npy")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable sample set: {error}") from error
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != 3:
        raise DataError(
            f"{path}: arr_0 is {images.shape} {images.dtype}; expected (M, S, S, 3) uint8"
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(np.array(labels))


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz: memory-mapped if it is stored uncompressed, else read."""
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


# --- sets that exist already ----------------------------------------------------------------------


def set_identity(
    context: StageContext, weights: Path, labels: Tensor, settings: SampleSettings
) -> str:
    """A hash of everything that images 0 to M - 1 of a set depend on.

    Args:
        context: of the run; the fingerprints of its stages stand for its networks and their code.
        weights: the file of the generator to sample from.
        labels: (M,) int64.
        settings: of this one set. The run used for autoguidance counts by its weights, not by its
            path.
    """
    weak = settings.guidance.autoguidance
    content: dict[str, Any] = {
        "version": STAGES["sample"].version,
        "generator": context.plan["generator"].fingerprint,  # includes the stages it reads
        "weights": file_identity(weights),
        "tokenizer": tokenizer_identity(context),
        "statistics": file_identity(context.require("latents") / SAFE_NAME),
        "autoguidance": None if weak is None else file_identity(generator_weights(weak)),
        "labels": labels.tolist(),
        "settings": settings.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={**dict.fromkeys(_NOT_HASHED, True), "guidance": {"autoguidance"}},
        ),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def reuse_finished(
    directory: Path,
    entry: dict[str, Any],
    labels: Tensor,
    link: Callable[[Path, Path], None] = os.link,
) -> Path | None:
    """Reuse a finished set with the same identity, of this stage or of another one in its store.

    The set is linked, or copied if the file system has no links. It appears complete or not at all.

    Args:
        directory: of the sample stage; it is searched first.
        entry: of the planned set. Its protocol takes over the counted evaluations and ``tf32``.
        labels: (M,) int64; only a set with these labels is reused.
        link: makes a link to a file at another path.

    Returns:
        The folder it was found in, or None.
    """
    others = sorted(path for path in directory.parent.glob("sample-*") if path != directory)
    for folder in (directory, *others):
        for found in _listed_sets(folder):
            source, path = folder / str(found.get("file")), directory / entry["file"]
            if found.get("identity") != entry["identity"] or not _has_labels(source, labels):
                continue
            if source != path and not _link_or_copy(source, path, link):
                continue
            protocol = found["protocol"]
            taken = {key: protocol[key] for key in (*COUNTED, "tf32") if key in protocol}
            entry["protocol"] |= taken
            return folder
    return None


def _listed_sets(folder: Path) -> Iterator[dict[str, Any]]:
    """Entries of the folder's list; none if the list is missing or damaged."""
    try:
        entries = read_json(folder / SETS)
    except (OSError, ValueError):
        return
    yield from (entry for entry in entries if isinstance(entry, dict))


def _has_labels(path: Path, labels: Tensor) -> bool:
    try:
        images, found = open_set(path)
    except DataError:
        return False
    return len(images) == len(labels) and torch.equal(found, labels)


def _link_or_copy(source: Path, path: Path, link: Callable[[Path, Path], None]) -> bool:
    """Whether it worked: another process may have removed the source."""
    try:
        with replacing(path) as aside:
            try:
                link(source, aside)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, aside)
    except FileNotFoundError:
        return False
    return True
