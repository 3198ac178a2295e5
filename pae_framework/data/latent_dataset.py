"""Latents of the training images on disk, in the shard layout LightningDiT reads and writes.

A shard is a safetensors file ``latents_rank{RR:02d}_shard{SSS:03d}.safetensors``: ``latents`` and
``latents_flip`` (n, C, h, w), of the images and of their mirror images, ``labels`` (n,) int64, and
the strings ``total_size``, ``dtype`` and ``device`` as metadata. Rows of a directory are counted
through its shards in the order of their numbers (hustvl/LightningDiT, commit 2725fed).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.data.data_settings import SHARDS
from pae_framework.errors import DataError, RunError
from pae_framework.files import replacing

KEYS = ("labels", "latents", "latents_flip")


def shard_name(rank: int, shard: int) -> str:
    """File name of a shard."""
    return f"latents_rank{rank:02d}_shard{shard:03d}.safetensors"


def write_shard(path: Path, latents: Tensor, latents_flip: Tensor, labels: Tensor) -> None:
    """Write one shard, whole or not at all, and read it back before it gets its name.

    Args:
        path: where; see :func:`shard_name`.
        latents: (n, C, h, w), float32 or bfloat16, written as they are.
        latents_flip: the same of the mirrored images.
        labels: (n,) int64.

    Raises:
        RunError: the latents are not finite, or the disk gave back something else.
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
            raise RunError(f"{path.name} was not written: its {key} hold NaN or infinity")
    metadata = {"total_size": str(len(labels)), "dtype": str(latents.dtype), "device": "cpu"}
    with replacing(path) as aside:
        save_file(tensors, aside, metadata)
        written = _open(aside)
        if not all(torch.equal(written[key], tensor) for key, tensor in tensors.items()):
            raise RunError(f"{path}: the disk does not give back what was written to it")


def shard_is_whole(path: Path, rows: int) -> bool:
    """Whether ``path`` is a complete shard of ``rows`` rows, which need not be written again."""
    try:
        return path.exists() and len(_checked(path)["labels"]) == rows
    except DataError:
        return False


class LatentDataset:
    """All shards of a directory as one data set; rows are read from mapped memory when asked for.

    Attributes:
        paths: the shards, in the order in which rows are counted.
        shape: shape of one latent.
        labels: (length,) int64.

    Raises:
        DataError: no shard, a damaged one, or two that disagree; names the file.
    """

    def __init__(self, directory: Path):
        self.paths = shard_paths(directory)
        self._shards = [_checked(path) for path in self.paths]
        for path, shard in zip(self.paths, self._shards, strict=True):
            _require_alike(path, shard, self.paths[0], self._shards[0])
        _, channels, side, _ = self._shards[0]["latents"].shape
        self.shape = LatentShape(channels, side)
        self.labels = torch.cat([shard["labels"] for shard in self._shards])
        sizes = torch.tensor([len(shard["labels"]) for shard in self._shards])
        self._ends = sizes.cumsum(0)
        self._starts = self._ends - sizes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The latent (C, h, w) float32 of an image as it is (not mirrored), and its label."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        latents, labels = self.batch(torch.tensor([index]))
        return latents[0], int(labels[0])

    def path_of(self, index: int) -> Path:
        """The shard that holds a row."""
        return self.paths[int(torch.bucketize(index, self._ends, right=True))]

    def batch(self, indices: Tensor, flips: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) float32, not normalised, and labels (B,) of some rows.

        Args:
            indices: row numbers (B,) int64.
            flips: (B,) bool, whether to take the mirrored image's latent; None: never.
        """
        if flips is None:
            flips = torch.zeros(len(indices), dtype=torch.bool)
        size = (len(indices), self.shape.channels, self.shape.side, self.shape.side)
        latents = torch.empty(size)
        shards = torch.bucketize(indices, self._ends, right=True)
        for number in shards.unique().tolist():
            for key, mirrored in (("latents", False), ("latents_flip", True)):
                rows = ((shards == number) & (flips == mirrored)).nonzero().squeeze(1)
                within = indices[rows] - self._starts[number]
                latents[rows] = self._shards[number][key][within].float()
        return latents, self.labels[indices]


def shard_paths(directory: Path) -> list[Path]:
    """The shards of a directory, in the order in which rows are counted.

    Raises:
        DataError: there is none.
    """
    paths = sorted(Path(directory).glob(SHARDS), key=_numbers)
    if not paths:
        raise DataError(f"{directory} holds no latents; expected files like {shard_name(0, 0)}")
    return paths


def _numbers(path: Path) -> list[int]:
    """Rank and shard in a file's name: names alone would sort shard 1000 before shard 999."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _open(path: Path) -> dict[str, Tensor]:
    """Tensors of a shard, in mapped memory.

    Raises:
        DataError: the file is missing, cut short or no shard.
    """
    try:
        with safe_open(path, "pt") as file:
            missing = sorted(set(KEYS) - set(file.keys()))
            tensors = {key: file.get_tensor(key) for key in KEYS if key not in missing}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable shard of latents: {error}") from error
    if missing:
        raise DataError(f"{path}: holds no {', '.join(missing)}; a shard has {', '.join(KEYS)}")
    return tensors


def _checked(path: Path) -> dict[str, Tensor]:
    """A shard whose tensors fit one another."""
    shard = _open(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in shard.items()}
    found = shapes["latents"]
    if len(found) != 4 or found[2] != found[3] or not shard["latents"].is_floating_point():
        raise DataError(f"{path}: latents are {found}; expected (n, C, h, h) of floats")
    if shapes["latents_flip"] != found:
        raise DataError(f"{path}: latents are {found}, latents_flip {shapes['latents_flip']}")
    if shapes["labels"] != found[:1] or shard["labels"].dtype != torch.int64:
        raise DataError(
            f"{path}: labels are {shapes['labels']} {shard['labels'].dtype}; expected "
            f"{found[:1]} torch.int64"
        )
    return shard


def _require_alike(
    path: Path, shard: dict[str, Tensor], other: Path, model: dict[str, Tensor]
) -> None:
    """Refuse two shards of different latents."""
    for here, there in (
        (tuple(shard["latents"].shape[1:]), tuple(model["latents"].shape[1:])),
        (shard["latents"].dtype, model["latents"].dtype),
    ):
        if here != there:
            raise DataError(
                f"{path}: its latents are {here}, those of {other.name} are {there}; "
                "one directory holds the latents of one tokenizer"
            )
