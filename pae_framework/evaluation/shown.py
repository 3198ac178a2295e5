"""What a report shows of a run besides its metrics: few images, and what is computed from them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from pae_framework.data.images import random_subset
from pae_framework.errors import DataError
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.evaluation.latent_pictures import cluster_maps, rotated_images
from pae_framework.evaluation.nearest_images import PIXEL_SIDE, nearest_images, small_pixels
from pae_framework.execution.context import StageContext
from pae_framework.layers import map_to_tokens
from pae_framework.report.content import Clusters, Nearest, Rotations, VariantImages
from pae_framework.tensor_files import load_tensors, save_tensors

logger = logging.getLogger(__name__)

SHOWN = 16
"""Test images shown with their reconstructions and latents."""
SHOWN_IMAGES = "shown_images.safetensors"
_NEAREST_IMAGES = "nearest_images.safetensors"
_SAMPLES, _NEIGHBORS = 10, 3
_TRAINING_IMAGES = 1000
"""Training images among which the nearest are looked for."""
_ROTATED = 8
_DEGREES = (0, 10, 20, 30, 45, 60, 75, 85)
_CLUSTERS = 6


def shown_inputs(context: StageContext) -> tuple[RunInputs, Tensor | None]:
    """Inputs with the test images to show, and their masks (M, S, S) or None.

    The images are kept in the stage's folder, so that a later report needs no others.
    """
    file = context.directory / SHOWN_IMAGES
    if file.is_file():
        kept = load_tensors(file)
        inputs = RunInputs(context, limit=SHOWN, test=(kept["images"], kept["labels"]))
        return inputs, kept.get("masks")
    inputs = RunInputs(context, limit=SHOWN)
    masks = {} if inputs.masks is None else {"masks": inputs.masks}
    save_tensors({"images": inputs.images, "labels": inputs.labels, **masks}, file)
    return inputs, masks.get("masks")


def shown_latents(inputs: RunInputs) -> Tensor | None:
    """Latents (M, C, h, w) of the test images; None if the tokenizer does not encode."""
    return None if "encode" in inputs.unavailable else inputs.latents


def shown_reconstructions(inputs: RunInputs) -> Tensor | None:
    """Reconstructions (M, 3, S, S) uint8; None if the tokenizer does not encode and decode."""
    return None if {"encode", "decode"} & inputs.unavailable.keys() else inputs.reconstructions


def variant_images(context: StageContext) -> VariantImages | None:
    """The test images that the report of a run shows; None if it kept none or cannot decode them.

    Args:
        context: of the stage ``report``, which is done.
    """
    if not (context.directory / SHOWN_IMAGES).is_file():
        return None
    inputs, _ = shown_inputs(context)
    latents, reconstructions = shown_latents(inputs), shown_reconstructions(inputs)
    if latents is None or reconstructions is None:
        return None
    return VariantImages(inputs.images, reconstructions, latents)


def rotations(inputs: RunInputs) -> Rotations | None:
    """Some test images decoded from rotated latents; None if one channel leaves no direction.

    None also if the tokenizer does not encode or decode.
    """
    if (found := shown_latents(inputs)) is None or "decode" in inputs.unavailable:
        return None
    latents = found[:_ROTATED]
    if latents.shape[1] < 2:
        return None
    return Rotations(_DEGREES, rotated_images(latents, inputs.decode, _DEGREES, inputs.seed))


def clusters(inputs: RunInputs, masks: Tensor | None) -> Clusters | None:
    """Clusters of the latents and of the encoder's tokens, if any, of the test images."""
    if (latents := shown_latents(inputs)) is None:
        return None
    tokens = {"latents": map_to_tokens(latents)}
    if "features" not in inputs.unavailable:
        tokens = {"encoder": inputs.features(torch.arange(len(inputs.images))), **tokens}
    maps = {name: cluster_maps(rows, _CLUSTERS, inputs.seed) for name, rows in tokens.items()}
    return Clusters(inputs.images, maps, masks)


def nearest_to_samples(context: StageContext, inputs: RunInputs) -> Nearest | None:
    """Samples with their nearest training images; None, with a warning, if these are not there.

    They are kept in the stage's folder, so that a later report needs no training images.
    """
    if not context.reads("sample"):
        return None
    file = context.directory / _NEAREST_IMAGES
    measure, features = _measure(context, inputs)
    if not file.is_file():
        try:
            save_tensors(_find_nearest(context, inputs, features), file)
        except DataError as error:
            logger.warning("the report shows no training images near the samples: %s", error)
            return None
    found = load_tensors(file)
    looked_at, available = found["looked_at"].tolist()
    return Nearest(found["samples"], found["nearest"], measure, looked_at, available)


def _find_nearest(
    context: StageContext, inputs: RunInputs, features: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    if problem := context.recipe.data.train.config.missing():
        raise DataError(problem)
    main = inputs.sample_sets[0]
    samples = main.images[_one_per_class(main.labels)].contiguous()
    source = context.train_source
    indices = random_subset(len(source), _TRAINING_IMAGES, inputs.seed)
    return {
        "samples": samples,
        "nearest": nearest_images(samples, source, indices, features, _NEIGHBORS),
        "looked_at": torch.tensor([len(indices), len(source)]),
    }


def _measure(context: StageContext, inputs: RunInputs) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The extractor that the run trained, which is small; else pixels."""
    if context.reads("extractor"):
        extractor = inputs.extractor
        return f"distance of features of the extractor {extractor.name}", extractor
    return f"distance of pixels, at most {PIXEL_SIDE} px a side", small_pixels


def _one_per_class(labels: Tensor) -> Tensor:
    """Index of the first sample of each class, for at most ten of them, evenly spaced."""
    present = labels.unique().tolist()
    chosen = present[:: -(-len(present) // _SAMPLES)]
    return torch.tensor([int((labels == label).nonzero()[0]) for label in chosen])
