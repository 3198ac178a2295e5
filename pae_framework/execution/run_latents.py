"""The latents that a run's generator is trained on, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.data.classes import empty_classes
from pae_framework.data.latent_dataset import LatentDataset
from pae_framework.data.statistics import (
    SAFE_NAME,
    LatentStatistics,
    load_statistics,
    recorded_tokenizer,
)
from pae_framework.errors import CheckpointError, DataError
from pae_framework.execution.context import StageContext
from pae_framework.recipe.derived import latent_shape
from pae_framework.runs.reading import read_record
from pae_framework.runs.results import ResultFile, StageResults
from pae_framework.system.files import file_identity

DESCRIPTION = "latents.json"
"""Describes the folder that the stage ``latents`` found its latents in."""


class Found(BaseModel):
    """The shape of :data:`DESCRIPTION`; runs of earlier versions do not list the files."""

    folder: str
    files: dict[str, ResultFile] = {}


def latents_folder(context: StageContext) -> Path:
    """The folder of the latent shards: ``latents.folder`` of the recipe, else the stage's own.

    The path comes from the recipe, not from the record of the stage, so the folder can be moved.
    """
    folder = context.recipe.latents.folder
    return context.results("latents").folder if folder is None else Path(folder).expanduser()


def run_latents(context: StageContext) -> LatentDataset:
    """All latents of the run, as its stage ``latents`` left or found them.

    Every process calls it; the main one reads all shards to check them, and the others wait.

    Raises:
        RunError: a shard is missing, has changed, or was added since.
        DataError: see :func:`open_latents`.
    """
    context.world.on_main(lambda: _require_unchanged(context))
    return open_latents(context)


def training_latents(context: StageContext) -> LatentDataset:
    """The same, in a process that works alone.

    Raises:
        RunError: a shard is missing, has changed, or was added since.
        DataError: see :func:`open_latents`.
    """
    _require_unchanged(context)
    return open_latents(context)


def _require_unchanged(context: StageContext) -> None:
    folder = context.require("latents")
    if context.recipe.latents.folder is not None:
        found = read_record(folder / DESCRIPTION, Found, "run the stage again with --again latents")
        remedy = "restore the folder, or run the recipe again with --again latents"
        StageResults(latents_folder(context), found.get("files"), remedy).files()


def open_latents(context: StageContext) -> LatentDataset:
    """All latents of the run, checked against the recipe. Opens every shard and reads its labels.

    Raises:
        DataError: there are no shards, a shard is damaged, the latents have another shape, or a
            label is not a class of this run; names the file.
    """
    dataset = LatentDataset(latents_folder(context))
    _require_shape(dataset, latent_shape(context.recipe))
    component = context.recipe.generator
    if component is not None and component.config.conditional:
        _require_classes(dataset, context.num_classes)
        if context.recipe.latents.written:
            _require_every_class(dataset, context.class_names)
    return dataset


def run_statistics(context: StageContext) -> LatentStatistics:
    """The statistics of the run's latents.

    Raises:
        DataError: they are missing, damaged, not finite, or for another number of channels.
        CheckpointError: they belong to the latents of another tokenizer.
    """
    file, folder = context.file("latents", SAFE_NAME), context.results("latents").folder
    require_own_tokenizer(context, folder, "run `pae run` again with --again latents")
    return load_statistics_for(latent_shape(context.recipe), file)


def load_statistics_for(latent: LatentShape, path: Path) -> LatentStatistics:
    """Load statistics of latents with this shape from a file or a folder.

    Raises:
        DataError: the file is missing or damaged, has no valid statistics, or statistics for
            another number of channels.
    """
    statistics = load_statistics(path)
    channels = statistics.mean.shape[1]
    if channels != latent.channels:
        raise DataError(
            f"{path}: statistics of latents with {channels} channels, but the run's latents are "
            f"{latent}; the file belongs to another tokenizer"
        )
    return statistics


def tokenizer_identity(context: StageContext) -> str:
    """A hash of the file that holds the run's tokenizer."""
    return file_identity(context.results("tokenizer").file("tokenizer.safetensors"))


def require_own_tokenizer(context: StageContext, folder: Path, hint: str) -> None:
    """Check that the statistics in ``folder`` belong to this run's tokenizer, if they name one.

    Latents of a tokenizer that does not encode come from elsewhere, and nothing is checked.

    Raises:
        CheckpointError: they name another tokenizer.
        DataError: the file is damaged.
    """
    if not context.recipe.tokenizer.encodes:
        return
    measured, ours = recorded_tokenizer(folder), tokenizer_identity(context)
    if measured is not None and measured != ours:
        raise CheckpointError(
            f"the statistics in {folder} belong to the latents of another tokenizer ({measured}, "
            f"this run's is {ours}); {hint}"
        )


def _require_shape(dataset: LatentDataset, shape: LatentShape) -> None:
    if dataset.shape != shape:
        raise DataError(
            f"{dataset.path_of(0)}: the latents are {dataset.shape}, those of this run's tokenizer "
            f"{shape} (channels x side x side); they belong to another tokenizer or image size"
        )


def _require_classes(dataset: LatentDataset, classes: int) -> None:
    labels: Tensor = dataset.labels  # (M,)
    unknown = ((labels < 0) | (labels >= classes)).nonzero().flatten().tolist()
    if unknown:
        raise DataError(
            f"{dataset.path_of(unknown[0])} has the label {labels[unknown[0]]}, but data.train has "
            f"{classes} classes, 0 to {classes - 1} ({len(unknown)} such labels in total)"
        )


def _require_every_class(dataset: LatentDataset, class_names: Sequence[str]) -> None:
    if problem := empty_classes(dataset.labels.tolist(), class_names):
        raise DataError(f"data.train: {problem}; add images, or remove these classes")
