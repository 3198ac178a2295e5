"""The latents that a run's generator trains on: its own, or those of a folder the recipe names."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.data.latent_dataset import LatentDataset
from pae_framework.errors import DataError
from pae_framework.execution.context import StageContext
from pae_framework.recipe.derived import latent_shape


def latents_folder(context: StageContext) -> Path:
    """Where the shards are. The recipe's word counts, so that a folder may be moved."""
    named = context.recipe.latents.folder
    return context.require("latents") if named is None else Path(named).expanduser()


def run_latents(context: StageContext) -> LatentDataset:
    """All of them, checked against the recipe. Opens every shard and reads its labels.

    Raises:
        DataError: there are none, a shard is damaged, or they are of another shape or have labels
            that are no classes of this run; names the file.
    """
    dataset = LatentDataset(latents_folder(context))
    _require_shape(dataset, latent_shape(context.recipe))
    component = context.recipe.generator
    assert component is not None
    if component.config.conditional:
        _require_classes(dataset, context.num_classes)
    return dataset


def _require_shape(dataset: LatentDataset, shape: LatentShape) -> None:
    if dataset.shape != shape:
        raise DataError(
            f"{dataset.path_of(0)}: its latents are {dataset.shape}, those of this run's tokenizer "
            f"{shape} (channels x side x side): they are of another tokenizer or image size"
        )


def _require_classes(dataset: LatentDataset, classes: int) -> None:
    labels: Tensor = dataset.labels
    strange = ((labels < 0) | (labels >= classes)).nonzero().flatten().tolist()
    if strange:
        raise DataError(
            f"{dataset.path_of(strange[0])}: holds the label {labels[strange[0]]}, but data.train "
            f"has {classes} classes, 0 to {classes - 1} ({len(strange)} such labels in all)"
        )
