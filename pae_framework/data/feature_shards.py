"""Tokens of a frozen encoder on disk, for trainings that see each image many times.

A shard is a safetensors file ``features_shard{SSS:03d}.safetensors`` with ``tokens`` (n, N, D) of n
images, and ``tokens_flip`` of their mirror images if they are needed, in the type in which the
encoder returned them.

Legend: n images of a shard, B of a batch, N tokens, D token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pae_framework.errors import DataError, RunError
from pae_framework.tensor_files import FLOATS, save_tensors

PLAIN, MIRRORED = "tokens", "tokens_flip"


def feature_shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"features_shard{shard:03d}.safetensors"


def write_features(path: Path, tokens: Tensor, mirrored: Tensor | None) -> None:
    """Write one shard completely or not at all.

    Args:
        path: file to write; see :func:`feature_shard_name`.
        tokens: (n, N, D).
        mirrored: those of the mirrored images, with the same shape; None: not needed.

    Raises:
        RunError: the tokens are not finite.
        WriteError: the file cannot be written.
    """
    tensors = {PLAIN: tokens} if mirrored is None else {PLAIN: tokens, MIRRORED: mirrored}
    for name, values in tensors.items():
        if not values.isfinite().all():
            raise RunError(f"{path.name} was not written: {name} contains NaN or infinity")
    save_tensors(tensors, path)


def is_complete_features(path: Path, rows: int, flip: bool) -> bool:
    """Whether ``path`` has the tokens of ``rows`` images, and of the mirrored ones if asked for."""
    try:
        return path.exists() and len(_open(path, flip)[PLAIN]) == rows
    except DataError:
        return False


class FeatureRows:
    """The shards of a folder as one list of tokens, read from mapped files on demand.

    Args:
        paths: the shards in order; all but the last have equally many images.
        flip: whether mirrored images are read, too.

    Raises:
        DataError: a shard is missing or damaged, or two differ in shape or type; names the file.
    """

    def __init__(self, paths: Sequence[Path], flip: bool):
        self._shards = [_open(path, flip) for path in paths]
        first = self._shards[0][PLAIN]
        self._rows, self._kind = len(first), (first.shape[1:], first.dtype)
        for path, shard in zip(paths, self._shards, strict=True):
            if any((tokens.shape[1:], tokens.dtype) != self._kind for tokens in shard.values()):
                raise DataError(f"{path}: its tokens differ in shape or type from {paths[0].name}")

    def __len__(self) -> int:
        return sum(len(shard[PLAIN]) for shard in self._shards)

    def batch(self, indices: Tensor, flips: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) of the images at ``indices`` (B,).

        Args:
            indices: of the images.
            flips: (B,) bool, whether to read those of the mirrored image; None: none.
        """
        mirrored = [False] * len(indices) if flips is None else flips.tolist()
        shape, dtype = self._kind
        tokens = torch.empty(len(indices), *shape, dtype=dtype)  # (B, N, D)
        for place, (index, flip) in enumerate(zip(indices.tolist(), mirrored, strict=True)):
            shard, row = divmod(index, self._rows)
            tokens[place] = self._shards[shard][MIRRORED if flip else PLAIN][row]
        return tokens


def _open(path: Path, flip: bool) -> dict[str, Tensor]:
    """Tensors of a shard, in mapped memory."""
    names = (PLAIN, MIRRORED) if flip else (PLAIN,)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in names}
    except Exception as error:  # a missing tensor or unknown number format is an error of any type
        raise DataError(f"{path}: not a readable shard of features: {error}") from error
    plain = tensors[PLAIN]
    if plain.ndim != 3 or plain.dtype not in FLOATS or plain.shape != tensors[names[-1]].shape:
        shapes = ", ".join(f"{name} {tuple(x.shape)} {x.dtype}" for name, x in tensors.items())
        raise DataError(f"{path}: {shapes}; expected tokens (n, N, D), and as many mirrored ones")
    return tensors
