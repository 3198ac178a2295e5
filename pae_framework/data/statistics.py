"""Mean and standard deviation of latents, which normalize a generator's data.

They are of each channel, or of each channel at each position, as RAE has them.

They are saved twice: as ``latents_stats.pt`` beside the shards, which LightningDiT reads
(hustvl/LightningDiT, commit 2725fed), and as ``statistics/latents_stats.safetensors``. The second
has its own folder because LightningDiT reads every safetensors file beside the shards as a shard.

Shapes: B latents of a batch (B, C, h, w), statistics (1, C, 1, 1) or (1, C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pae_framework.contracts import LatentRows
from pae_framework.data.data_settings import STATISTICS
from pae_framework.data.latent_dataset import LatentDataset
from pae_framework.errors import CheckpointError, DataError
from pae_framework.seeding import generator
from pae_framework.tensor_files import save_tensors, save_torch_file
from pae_framework.untrusted_files import plain_tensors, read_untrusted

SAFE_NAME, TORCH_NAME = STATISTICS
BARE_NAME = "latents_stats.safetensors"
"""Name of the first file outside its folder."""
TOKENIZER = "tokenizer"
"""Key of the metadata that identifies the tokenizer."""
CHUNK = 1000
RAE_EPS = 1e-5
"""Added to the variances of RAE's files before the root."""


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of latents, each (1, C, 1, 1) or (1, C, h, w) float32."""

    mean: Tensor
    std: Tensor

    def normalize(self, z: Tensor) -> Tensor:
        """Scale latents (B, C, h, w) to mean 0 and deviation 1."""
        return (z - self.mean.to(z.device)) / self.std.to(z.device)

    def denormalize(self, z: Tensor) -> Tensor:
        """Inverse of :meth:`normalize`."""
        return z * self.std.to(z.device) + self.mean.to(z.device)

    def save(self, directory: Path, tokenizer: str | None = None) -> None:
        """Write both files into ``directory``; the safetensors file records the tokenizer."""
        tensors = {"mean": self.mean, "std": self.std}
        metadata = {TOKENIZER: tokenizer} if tokenizer else None
        save_tensors(tensors, directory / SAFE_NAME, metadata)
        save_torch_file(tensors, directory / TORCH_NAME)


def recorded_tokenizer(directory: Path) -> str | None:
    """The tokenizer that :meth:`LatentStatistics.save` recorded; None if there is no record."""
    path = directory / SAFE_NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except Exception as error:  # damaged headers fail in more ways than can be listed
        raise DataError(f"{path} cannot be read: {error}") from error
    return metadata.get(TOKENIZER)


def compute_statistics(directory: Path, seed: int = 0, rows: int = 10_000) -> LatentStatistics:
    """:func:`statistics_of` the latents in a directory, per channel."""
    return statistics_of(LatentDataset(directory), directory, seed=seed, rows=rows)


def statistics_of(
    latents: LatentRows,
    directory: Path,
    per_position: bool = False,
    seed: int = 0,
    rows: int = 10_000,
) -> LatentStatistics:
    """Compute the statistics of latents, without those of mirrored images.

    Args:
        latents: those of the chosen rows are read twice.
        directory: of the stage, for messages.
        per_position: of each channel at each position instead of each channel.
        seed: chooses the rows if there are more than ``rows``.
        rows: largest number of latents that are read.

    Returns:
        Mean and unbiased deviation over the rows and, unless per position, h and w, summed in
        float64.

    Raises:
        DataError: a channel is constant or not finite.
    """
    chosen = torch.randperm(len(latents), generator=generator(seed, "latent statistics"))[:rows]
    chunks = chosen.sort().values.split(CHUNK)
    over = (0,) if per_position else (0, 2, 3)

    def sum_over_chunks(of: Callable[[Tensor], Tensor]) -> Tensor:
        sums = [of(latents.read(chunk).double()).sum(over, keepdim=True) for chunk in chunks]
        return torch.stack(sums).sum(dim=0)  # (1, C, 1, 1) or (1, C, h, w)

    positions = 1 if per_position else latents.read(chosen[:1])[0, 0].numel()
    values = len(chosen) * positions
    mean = sum_over_chunks(lambda z: z) / values
    variance = sum_over_chunks(lambda z: (z - mean).square()) / max(1, values - 1)
    return _checked(LatentStatistics(mean.float(), variance.sqrt().float()), directory)


def load_statistics(path: Path) -> LatentStatistics:
    """Read statistics from a file, or from a directory that contains one of the two files.

    Reads ``mean`` and ``std``, and RAE's ``mean`` and ``var`` (C, h, w): either may be None, for 0
    and 1; the deviation is the root of ``var`` + 1e-5.

    Raises:
        DataError: the file is missing or damaged, or its values are not valid statistics.
    """
    path = Path(path)
    if path.is_dir():
        candidates = [path / name for name in (SAFE_NAME, BARE_NAME, TORCH_NAME)]
        existing = [candidate for candidate in candidates if candidate.is_file()]
        if not existing:
            raise DataError(f"{path} contains neither {SAFE_NAME} nor {TORCH_NAME}")
        path = existing[0]
    try:
        content = read_untrusted(path)
        if not isinstance(content, Mapping) or not (content.keys() & {"std", "var"}):
            raise DataError(f"{path}: expected tensors `mean` and `std`, or RAE's `mean` and `var`")
        of_rae = "std" not in content
        given = {key: content.get(key) for key in ("mean", "var" if of_rae else "std")}
        if of_rae:
            given = {key: value for key, value in given.items() if value is not None}
        tensors = plain_tensors(given, str(path), path.stat().st_size)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    if other := [key for key, value in tensors.items() if not value.is_floating_point()]:
        kind = tensors[other[0]].dtype
        raise DataError(f"{path}: `{other[0]}` is {kind}, not a floating-point number")
    if of_rae:
        tensors = _from_rae(tensors, path)
    return _checked(LatentStatistics(tensors["mean"].float(), tensors["std"].float()), path)


def _from_rae(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Mean and deviation (1, C, h, w) of RAE's ``mean`` and ``var`` (C, h, w), if they are there.

    Raises:
        DataError: there is neither, one has another shape, or a variance is negative.
    """
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3:
        found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        raise DataError(
            f"{path}: expected `mean` and `var` (C, h, w), at most one of them None, found {found}"
        )
    zeros = torch.zeros(1, *shape)
    mean, variance = (
        tensors[key][None].float() if key in tensors else None for key in ("mean", "var")
    )
    if variance is not None and (variance < 0).any():
        raise DataError(f"{path}: `var` holds negative numbers")
    return {
        "mean": zeros if mean is None else mean,
        "std": zeros + 1 if variance is None else (variance + RAE_EPS).sqrt(),
    }


def _checked(statistics: LatentStatistics, path: Path) -> LatentStatistics:
    mean, std = statistics.mean, statistics.std
    square = mean.dim() == 4 and mean.shape[0] == 1 and mean.shape[2] == mean.shape[3]
    if not square or mean.shape != std.shape:
        raise DataError(
            f"{path}: mean {tuple(mean.shape)} and std {tuple(std.shape)}; expected (1, C, 1, 1), "
            "or (1, C, h, h) for statistics of each position"
        )
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise DataError(f"{path}: the statistics hold NaN or infinity")
    if not (std > 0).all():
        constant = (std <= 0).amax(dim=(0, 2, 3)).nonzero().flatten().tolist()
        raise DataError(f"{path}: no deviation above 0 in latent channels {constant}")
    return statistics
