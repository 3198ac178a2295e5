"""Statistics that latents are normalised by, and the tokenizer they belong to."""

from __future__ import annotations

from pae_framework.data.statistics import LatentStatistics, load_statistics, tokenizer_of
from pae_framework.errors import CheckpointError
from pae_framework.runs.plan import file_identity
from pae_framework.stages.context import StageContext


def tokenizer_identity(context: StageContext) -> str:
    """What tells the run's tokenizer from others: a hash of its file."""
    stage = context.run.stage(context.plan["tokenizer"])
    return file_identity(stage.path / "tokenizer.safetensors")


def run_statistics(context: StageContext) -> LatentStatistics:
    """The statistics of the run's latents, if they are those of its tokenizer.

    Raises:
        DataError: they are missing, damaged or not finite.
        CheckpointError: they were measured on another tokenizer's latents.
    """
    folder = context.require("latents")
    measured, ours = tokenizer_of(folder), tokenizer_identity(context)
    if measured is not None and measured != ours:
        raise CheckpointError(
            f"the statistics in {folder} are of the latents of another tokenizer ({measured}) than "
            f"this run's ({ours}); remove that folder, and `pae run` makes both again"
        )
    return load_statistics(folder)
