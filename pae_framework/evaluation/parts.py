"""What identifies the parts of an evaluation, for the protocols and subjects of metrics."""

from __future__ import annotations

from typing import Any

from torch import nn

from pae_framework.data.pixels import UINT8
from pae_framework.execution.context import StageContext
from pae_framework.recipe.components import EncoderComponent
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.data_record import source_of
from pae_framework.runs.plan import Split
from pae_framework.tensor_files import weights_digest

_WEIGHTS = {"tokenizer": "tokenizer.safetensors", "generator": "weights.safetensors"}
"""Stages that a network may be named after, and the file of its weights."""


def identity_of_test_images(context: StageContext, count: int) -> dict[str, Any]:
    """The test images of a run: their source, how many were chosen, and how they are processed.

    Args:
        context: of the stage that evaluates.
        count: number of images that are evaluated.
    """
    recipe, available = context.recipe, len(context.test_source)
    chosen: dict[str, Any] = {"test_images_chosen": "all"}
    if count < available:
        chosen = {
            "test_images_chosen": f"of {available}, at random",
            "test_images_seed": recipe.seed,
        }
    return {
        "test_data": _data(context, "test"),
        "test_images": count,
        **chosen,
        **_processing(context, "test"),
    }


def identity_of_training_images(context: StageContext) -> dict[str, Any]:
    """All training images of a run, in the same words."""
    return {"training_data": _data(context, "train"), **_processing(context, "train")}


def _data(context: StageContext, split: Split) -> dict[str, Any]:
    """A data source: by the contents of its files, if it has any, wherever they are."""
    component, contents = source_of(context.recipe, split), context.planned.data.get(split)
    settings = component.config.model_dump(mode="json")
    if contents is not None:
        locations = component.config.locations
        settings = {key: settings[key] for key in settings.keys() - locations}
        settings["contents"] = contents
    return {"use": component.use, **settings}


def _processing(context: StageContext, split: Split) -> dict[str, Any]:
    """How images of a data source become those that are measured."""
    side = context.recipe.data.image_size
    return {
        "image_size": f"{side} x {side}",
        "crop": f"that of {source_of(context.recipe, split).use}",
        "uint8": UINT8,
        "precision": "float32",
        "tf32": context.machine["tf32"],
    }


def stage_identity(context: StageContext, stage: str) -> dict[str, Any]:
    """The network that a finished stage left: fingerprint, digest of its weights, and seed."""
    planned = context.plan[stage]
    record = context.run.stage(planned).info
    identity: dict[str, Any] = {stage: planned.fingerprint}
    if (file := record.get("results", {}).get(_WEIGHTS[stage])) is not None:
        identity[f"{stage}_digest"] = f"xxh3 {file['xxh3']}"
    if (train := STAGES[stage].train(context.recipe)) is not None:
        identity[f"{stage}_seed"] = context.seed(train)
    return identity


def encoder_identity(
    context: StageContext, part: str, component: EncoderComponent, network: nn.Module
) -> dict[str, Any]:
    """An encoder or extractor: name, settings, digest of its weights, and seed if it was trained.

    Args:
        context: of the stage that evaluates.
        part: ``encoder`` or ``extractor``.
        component: what the recipe says.
        network: the network with its weights.
    """
    config = component.config
    settings = config.model_dump(
        mode="json", exclude_defaults=True, exclude=set(config.files()) | config.without_effect
    )
    identity: dict[str, Any] = {part: component.use, f"{part}_digest": weights_digest(network)}
    if settings:
        identity[f"{part}_settings"] = settings
    if component.train is not None:
        identity[f"{part}_seed"] = context.seed(component.train)
    return identity
