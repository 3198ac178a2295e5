"""Mean and standard deviation of latents per channel, which normalize a generator's data.

They are saved twice: as ``latents_stats.pt`` beside the shards, which LightningDiT reads
(hustvl/LightningDiT, commit 2725fed), and as ``statistics/latents_stats.safetensors``. The second
has its own folder because LightningDiT reads every safetensors file beside the shards as a shard.

Shapes: B latents of a batch (B, C, h, w), statistics (1, C, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

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
STANDARD_EPS = 1e-5
"""Added to RAE's variances before the root."""


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of latents per channel, each (1, C, 1, 1) float32."""

    mean: Tensor
    std: Tensor

    def normalize(self, z: Tensor) -> Tensor:
        """Scale latents (B, C, h, w) to mean 0 and deviation 1 per channel."""
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

    @property
    def change_nothing(self) -> bool:
        """Whether normalized latents are the latents, which then do not show their tokenizer."""
        return not self.mean.any() and bool((self.std == 1).all())

    @classmethod
    def none(cls, channels: int) -> LatentStatistics:
        """Mean 0 and deviation 1, which change nothing."""
        return cls(torch.zeros(1, channels, 1, 1), torch.ones(1, channels, 1, 1))


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


def statistics_rows(count: int, seed: int = 0, rows: int = 10_000) -> Tensor:
    """Which of ``count`` latents the statistics are of, in order: at most ``rows``, by the seed."""
    return (
        torch.randperm(count, generator=generator(seed, "latent statistics"))[:rows].sort().values
    )


def compute_statistics(directory: Path, seed: int = 0, rows: int = 10_000) -> LatentStatistics:
    """:func:`statistics_of` the latents in a directory, without those of mirrored images."""
    latents = LatentDataset(directory)
    chunks = statistics_rows(len(latents), seed, rows).split(CHUNK)
    return statistics_of(map(latents.read, chunks), directory)


def statistics_of(batches: Iterable[Tensor], directory: Path) -> LatentStatistics:
    """Compute the statistics of latents in a single pass.

    Args:
        batches: the latents, each (B, C, h, w); at least one.
        directory: of the stage, for messages.

    Returns:
        Mean and unbiased deviation over (rows, h, w), summed in float64.

    Raises:
        DataError: a channel is constant or not finite.
    """
    count = 0
    mean = square = torch.zeros((), dtype=torch.float64)  # squared deviations from the mean
    for batch in batches:
        values = batch.double().transpose(0, 1).flatten(1)  # (C, B h w)
        more = values.shape[1]
        shift = values.mean(dim=1) - mean  # (C,)
        # Chan, Golub and LeVeque (1979), as in the identity bottleneck
        square = square + values.var(dim=1, unbiased=False) * more
        square = square + shift.square() * (count * more / (count + more))
        mean = mean + shift * (more / (count + more))
        count += more
    std = (square / max(1, count - 1)).sqrt()
    found = LatentStatistics(*(x.float().view(1, -1, 1, 1) for x in (mean, std)))
    return _checked(found, directory)


def load_statistics(path: Path) -> LatentStatistics:
    """Read statistics from a file, or from a directory that contains one of the two files.

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
        if not isinstance(content, Mapping) or not {"mean", "std"} <= content.keys():
            hint = ""
            if isinstance(content, Mapping) and "var" in content:
                hint = "; RAE's statistics belong in tokenizer.bottleneck.statistics (identity)"
            raise DataError(f"{path}: expected tensors `mean` and `std`{hint}")
        both = {key: content[key] for key in ("mean", "std")}
        tensors = plain_tensors(both, str(path), path.stat().st_size)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    if other := [key for key, value in tensors.items() if not value.is_floating_point()]:
        kind = tensors[other[0]].dtype
        raise DataError(f"{path}: `{other[0]}` is {kind}, not a floating-point number")
    return _checked(LatentStatistics(tensors["mean"].float(), tensors["std"].float()), path)


def load_standardization(path: Path) -> tuple[Tensor | None, Tensor | None]:
    """Mean and variance (C, h, w) of each position, from a file of RAE: ``mean`` and ``var``.

    Latents are standardized as (z - mean) / sqrt(var + 1e-5). Either may be None: then it is 0, or
    1 - 1e-5, which leaves latents as they are.

    Raises:
        DataError: the file is missing or damaged, or holds no valid statistics.
    """
    try:
        content = read_untrusted(path)
        if not isinstance(content, Mapping) or "var" not in content:
            raise DataError(f"{path}: expected RAE's `mean` and `var`, each a tensor or None")
        given = {key: content.get(key) for key in ("mean", "var")}
        given = {key: value for key, value in given.items() if value is not None}
        tensors = plain_tensors(given, str(path), path.stat().st_size)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    _require_standardization(tensors, path)
    mean, variance = (tensors[key].float() if key in tensors else None for key in ("mean", "var"))
    return mean, variance


def _require_standardization(tensors: Mapping[str, Tensor], path: Path) -> None:
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    shapes = set(found.values())
    if len(shapes) > 1 or any(len(x) != 3 or x[1] != x[2] for x in shapes):
        raise DataError(
            f"{path}: expected RAE's `mean` and `var` of the same shape (C, h, h); found {found}"
        )
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise DataError(f"{path}: `{key}` holds NaN, infinity or integers ({tensor.dtype})")
    if "var" in tensors and (tensors["var"] < 0).any():
        raise DataError(f"{path}: `var` holds negative numbers")


def _checked(statistics: LatentStatistics, path: Path) -> LatentStatistics:
    mean, std = statistics.mean, statistics.std
    if mean.dim() != 4 or mean.shape != std.shape or mean.numel() != mean.shape[1]:
        raise DataError(
            f"{path}: mean {tuple(mean.shape)} and std {tuple(std.shape)}; expected (1, C, 1, 1)"
        )
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise DataError(f"{path}: the statistics hold NaN or infinity")
    if not (std > 0).all():
        constant = (std.flatten() <= 0).nonzero().flatten().tolist()
        raise DataError(f"{path}: no deviation above 0 in latent channels {constant}")
    return statistics
