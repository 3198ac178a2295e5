"""Diagnostics of latents that nobody trained, by which those of a tokenizer are read.

- ``random``: independent normal numbers of the same shape. They know nothing of the images.
- ``pixels``: the principal components of each patch of pixels, as many as channels, and the linear
  decoder that goes with them. They are what a tokenizer gets without learning.

LPC has no value for random latents, which have no decoder; in its place are perceptual distances
of other images. SSC and LPC are computed for few images, GSQ for the first draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pae_evaluators.diagnostics import BATCH, Diagnostics, Of
from pae_evaluators.latent_references import PixelComponents, other_images, random_latents
from pae_framework.contracts import Metric
from pae_framework.data.pixels import to_float
from pae_framework.layers import map_to_tokens

_IMAGES = 50
"""Most images for SSC and LPC, of those for which the tokenizer's are computed."""


def reference_metrics(diagnostics: Diagnostics) -> Iterator[Metric]:
    """The diagnostics of the references that are turned on, with the number of classes."""
    config = diagnostics.config
    if config.ssc or config.lpc or config.gsq or config.erank:
        for metric in _metrics(diagnostics):
            yield replace(metric, protocol={**metric.protocol, "of_classes": diagnostics.classes})


def _metrics(diagnostics: Diagnostics) -> Iterator[Metric]:
    config, inputs = diagnostics.config, diagnostics.inputs
    channels, grid = inputs.latents.shape[1:3]
    chosen = diagnostics.chosen(_IMAGES)
    images = inputs.images[chosen]
    components = PixelComponents.of(images, grid, channels)
    random = Of.reference("random", "random latents: independent normal numbers")
    pixels = Of.reference(
        "pixels",
        "principal components of the pixels of each patch",
        fitted_to=f"{len(images)} test images",
        components=components.channels,
    )
    if config.ssc:
        noise = random_latents(len(chosen), grid**2, channels, seed=inputs.seed)
        for of, tokens in ((random, noise), (pixels, map_to_tokens(components.encode(images)))):
            if (metric := diagnostics.ssc(of, tokens, chosen)) is not None:
                yield metric
    if config.lpc and diagnostics.lacks_lpc is None:
        yield diagnostics.lpc(pixels, components.encode(images), components.decode)
        if len(chosen) > 1:
            yield from _distances(diagnostics, chosen)
    if not (config.gsq or config.erank):
        return
    noise = random_latents(len(inputs.latents), channels, seed=inputs.seed)
    for of, latents in ((random, noise), (pixels, components.pooled(inputs.images))):
        if config.gsq and diagnostics.classes > 1:
            yield diagnostics.gsq(of, latents, diagnostics.draws()[:1])
        if config.erank:
            yield diagnostics.erank(of, latents)


def _distances(diagnostics: Diagnostics, chosen: Tensor) -> Iterator[Metric]:
    """Perceptual distances of test images x and decoded ones D(z) to those of other images."""
    inputs = diagnostics.inputs
    images, others = to_float(inputs.images[chosen]), other_images(len(chosen), inputs.seed)
    decoded = torch.cat([inputs.decode(part).cpu() for part in inputs.latents[chosen].split(BATCH)])
    tokenizer = inputs.protocol_of("tokenizer")
    distance = diagnostics.distance

    def of(words: str) -> Of:
        return Of({**tokenizer, "reference": words}, spread=True)

    yield distance(
        of("latent of another test image"),
        *("lpc_other", "LPC another latent", "D(z) and D(z of another image)"),
        *(decoded, decoded[others]),
    )
    yield distance(
        of("own image"), "distance_own", "Distance to own image", "D(z) and x", decoded, images
    )
    yield distance(
        of("another test image"),
        *("distance_other", "Distance to another image", "D(z) and another x"),
        *(decoded, images[others]),
    )
    yield distance(
        Of({"reference": "test images"}, spread=True),
        *("distance_images", "Distance between images", "x and another x"),
        *(images, images[others]),
    )
