"""Latents of the training images on disk, in the shard layout LightningDiT reads and writes.

A shard is a safetensors file ``latents_rank{RR:02d}_shard{SSS:03d}.safetensors``: ``latents`` and
``latents_flip`` (n, C, h, w), of the images and of their mirror images, ``labels`` (n,) int64, and
the strings ``total_size``, ``dtype`` and ``device`` as metadata. Row numbers run through the shards
of a directory in the order of their numbers (hustvl/LightningDiT, commit 2725fed).

Shapes: n rows of a shard, B rows of a batch, latents (C, h, w).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.data.data_settings import SHARDS
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError, RunError
from pae_framework.system.files import file_problem, replacing
from pae_framework.tensor_files import FLOATS, tensor_bytes, write_safetensors

KEYS = ("labels", "latents", "latents_flip")
_SHARD_NAME = re.compile(r"latents_rank(\d+)_shard(\d+)\.safetensors")


def shard_name(rank: int, shard: int) -> str:
    """File name of a shard."""
    return f"latents_rank{rank:02d}_shard{shard:03d}.safetensors"


def write_shard(path: Path, latents: Tensor, latents_flip: Tensor, labels: Tensor) -> None:
    """Write one shard completely or not at all. It is verified before it gets its name.

    Args:
        path: file to write; see :func:`shard_name`.
        latents: (n, C, h, w), float32 or bfloat16, stored in this type.
        latents_flip: latents of the mirrored images, with the same shape.
        labels: (n,) int64.

    Raises:
        RunError: the latents are not finite, or the file does not read back the same.
    """
    assert latents.shape == latents_flip.shape
    assert labels.shape == latents.shape[:1]
    tensors = {
        "latents": latents.detach().cpu().contiguous(),
        "latents_flip": latents_flip.detach().cpu().contiguous(),
        "labels": labels.cpu().to(torch.int64).contiguous(),
    }
    if tensors["latents"].data_ptr() == tensors["latents_flip"].data_ptr():
        tensors["latents_flip"] = tensors["latents"].clone()  # safetensors refuses shared memory
    for key in ("latents", "latents_flip"):
        if not tensors[key].isfinite().all():
            raise RunError(f"{path.name} was not written: {key} contains NaN or infinity")
    metadata = {"total_size": str(len(labels)), "dtype": str(latents.dtype), "device": "cpu"}
    with replacing(path, tensor_bytes(tensors.values())) as unfinished:
        write_safetensors(tensors, unfinished, metadata)
        written = _open(unfinished)
        if not all(torch.equal(written[key], tensor) for key, tensor in tensors.items()):
            raise RunError(f"{path}: the values on disk differ from those written")


def is_complete_shard(path: Path, rows: int) -> bool:
    """Whether ``path`` is a valid shard of ``rows`` rows."""
    try:
        return path.exists() and len(_read_checked(path)["labels"]) == rows
    except DataError:
        return False


class LatentDataset:
    """All shards of a directory as one data set; rows are read from mapped files on demand.

    Attributes:
        paths: the shards, in the order of their rows.
        shape: shape of one latent.
        labels: (length,) int64.
        sizes: number of rows of each shard.

    Raises:
        DataError: there is no shard, a shard is damaged, or two differ in the shape or type of
            their latents; names the file.
    """

    def __init__(self, directory: Path):
        self.paths = shard_paths(directory)
        self._shards = [_read_checked(path) for path in self.paths]
        for path, shard in zip(self.paths, self._shards, strict=True):
            _require_same_kind(path, shard, self.paths[0], self._shards[0])
        _, channels, side, _ = self._shards[0]["latents"].shape
        self.shape = LatentShape(channels, side)
        self.labels = torch.cat([shard["labels"] for shard in self._shards])
        self.sizes = [len(shard["labels"]) for shard in self._shards]
        sizes = torch.tensor(self.sizes)
        self._ends = sizes.cumsum(0)
        self._starts = self._ends - sizes

    def __len__(self) -> int:
        return len(self.labels)

    def path_of(self, index: int) -> Path:
        """The shard that contains a row."""
        return self.paths[int(torch.bucketize(index, self._ends, right=True))]

    def read(self, indices: Tensor) -> Tensor:
        """Latents (B, C, h, w) float32, not normalized, of some rows (B,), not mirrored."""
        return self.batch(indices)[0]

    def batch(self, indices: Tensor, flips: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) float32, not normalized, and labels (B,) of some rows.

        Args:
            indices: row numbers (B,) int64.
            flips: (B,) bool, whether to read the latent of the mirrored image; None: none.
        """
        if flips is None:
            flips = torch.zeros(len(indices), dtype=torch.bool)
        size = (len(indices), self.shape.channels, self.shape.side, self.shape.side)
        latents = torch.empty(size)  # (B, C, h, w)
        shards = torch.bucketize(indices, self._ends, right=True)  # (B,)
        for number in shards.unique().tolist():
            for key, mirrored in (("latents", False), ("latents_flip", True)):
                rows = ((shards == number) & (flips == mirrored)).nonzero().squeeze(1)
                shard_rows = indices[rows] - self._starts[number]
                latents[rows] = self._shards[number][key][shard_rows].float()
        return latents, self.labels[indices]


@dataclass(frozen=True)
class LatentBatches:
    """Normalized latents by step: ``batches(start, stop)`` iterates over those steps.

    Args:
        dataset: the latents.
        normalize: (B, C, h, w) to (B, C, h, w), such as ``LatentStatistics.normalize``; must pickle
            if there are workers.
        stream: decides which latents each step gets, and which are of mirrored images.
        workers: processes that read ahead; 0: read in this one. The batches are the same.
        flip: whether to use latents of mirrored images.
    """

    dataset: LatentDataset
    normalize: Callable[[Tensor], Tensor]
    stream: CountStream
    workers: int = 0
    flip: bool = True

    def __call__(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Latents (B, C, h, w) float32 and labels (B,) of each step in [``start``, ``stop``)."""
        return read_steps(self.read, start, stop, self.workers)

    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of one step."""
        flips = self.stream.flips(step) if self.flip else None  # (B,)
        latents, labels = self.dataset.batch(self.stream.batch(step), flips)
        return self.normalize(latents), labels


def shard_paths(directory: Path) -> list[Path]:
    """The shards of a directory, in the order of their rows.

    Raises:
        DataError: there is none.
    """
    paths = sorted(Path(directory).glob(SHARDS), key=shard_numbers)
    if not paths:
        raise DataError(f"{directory} holds no latents; expected files like {shard_name(0, 0)}")
    return paths


def shard_numbers(path: Path) -> tuple[int, int]:
    """Rank and shard of a file name; as strings, shard 1000 would sort before shard 999.

    Raises:
        DataError: it is not the name of a shard.
    """
    match = _SHARD_NAME.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path}: not the name of a shard, such as {shard_name(0, 0)}")
    return int(match[1]), int(match[2])


def _open(path: Path) -> dict[str, Tensor]:
    """Tensors of a shard, in mapped memory."""
    if problem := file_problem(path):
        raise DataError(problem)
    try:
        with safe_open(path, "pt") as file:
            stated = (file.metadata() or {}).get("total_size")
            missing = sorted(set(KEYS) - set(file.keys()))
            tensors = {key: file.get_tensor(key) for key in KEYS if key not in missing}
    except Exception as error:  # an unknown number format is a KeyError
        raise DataError(f"{path}: not a readable shard of latents: {error}") from error
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; a shard has {', '.join(KEYS)}")
    rows = tensors["labels"].numel()
    if stated not in (None, str(rows)):
        raise DataError(f"{path} states {stated} latents, but has {rows}")
    return tensors


def _read_checked(path: Path) -> dict[str, Tensor]:
    shard = _open(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in shard.items()}
    shape = shapes["latents"]
    if len(shape) != 4 or shape[2] != shape[3] or shard["latents"].dtype not in FLOATS:
        raise DataError(
            f"{path}: latents are {shape} {shard['latents'].dtype}; expected (n, C, h, h) of "
            "float32, bfloat16, float16 or float64"
        )
    flip = shapes["latents_flip"], shard["latents_flip"].dtype
    if flip != (shape, shard["latents"].dtype):
        raise DataError(
            f"{path}: latents are {shape} {shard['latents'].dtype}, but latents_flip {flip[0]} "
            f"{flip[1]}"
        )
    if shapes["labels"] != shape[:1] or shard["labels"].dtype != torch.int64:
        raise DataError(
            f"{path}: labels are {shapes['labels']} {shard['labels'].dtype}; expected "
            f"{shape[:1]} torch.int64"
        )
    return shard


def _require_same_kind(
    path: Path, shard: dict[str, Tensor], first_path: Path, first: dict[str, Tensor]
) -> None:
    kind, first_kind = (
        (tuple(latents.shape[1:]), latents.dtype)
        for latents in (shard["latents"], first["latents"])
    )
    if kind != first_kind:
        raise DataError(
            f"{path}: its latents are {kind[0]} {kind[1]}, but those of {first_path.name} are "
            f"{first_kind[0]} {first_kind[1]}; the shards of a directory must be of one tokenizer"
        )
