"""Statistics that latents are normalised by, and the tokenizer they belong to."""

from __future__ import annotations

from pathlib import Path

from pae_framework.config import LatentShape
from pae_framework.data.statistics import LatentStatistics, load_statistics, tokenizer_of
from pae_framework.errors import CheckpointError, DataError
from pae_framework.execution.context import StageContext
from pae_framework.files import file_identity
from pae_framework.recipe.derived import latent_shape


def tokenizer_identity(context: StageContext) -> str:
    """What tells the run's tokenizer from others: a hash of its file."""
    stage = context.run.stage(context.plan["tokenizer"])
    return file_identity(stage.path / "tokenizer.safetensors")


def run_statistics(context: StageContext) -> LatentStatistics:
    """The statistics of the run's latents, if they are those of its tokenizer.

    Raises:
        DataError: they are missing, damaged, not finite, or of latents with other channels.
        CheckpointError: they were measured on another tokenizer's latents.
    """
    folder = context.require("latents")
    hint = "remove that folder, and `pae run` makes its files again"
    require_own_tokenizer(context, folder, hint)
    return fitting_statistics(folder, latent_shape(context.recipe))


def require_own_tokenizer(context: StageContext, folder: Path, hint: str) -> None:
    """Statistics in a folder, if they name a tokenizer, must name this run's.

    Raises:
        CheckpointError: they name another.
        DataError: the file is damaged.
    """
    measured, ours = tokenizer_of(folder), tokenizer_identity(context)
    if measured is not None and measured != ours:
        raise CheckpointError(
            f"the statistics in {folder} are of the latents of another tokenizer ({measured}) than "
            f"this run's ({ours}); {hint}"
        )


def fitting_statistics(path: Path, latent: LatentShape) -> LatentStatistics:
    """Statistics, in a file or a folder, of latents of this shape.

    Raises:
        DataError: the file is missing or damaged, its figures are no statistics, or they are of
            latents with other channels.
    """
    statistics = load_statistics(path)
    channels = statistics.mean.shape[1]
    if channels != latent.channels:
        raise DataError(
            f"{path}: statistics of latents with {channels} channels, but the run's are {latent}; "
            "they are of another tokenizer"
        )
    return statistics
