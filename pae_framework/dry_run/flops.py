"""FLOPs, counted by torch on the meta device; one multiply-add is two.

A trained network counts three times its forward pass: the backward pass computes gradients of
inputs and of weights. A frozen network that passes gradients on counts twice, any other once. Of a
teacher that the run trains, the backward pass is counted, since parts of it may be frozen.
Elementwise operations, norms and the optimizer are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pae_framework.build import META, Networks
from pae_framework.config import LatentShape
from pae_framework.contracts import Encoder
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import planned_evaluations
from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.refinement import PriorRefiner

TRAINED, FROZEN_WITH_GRADIENT, ONCE = 3, 2, 1


@dataclass(frozen=True)
class Forward:
    """FLOPs of the forward pass of one image per component; 0 if the recipe lacks the component."""

    extractor: int
    encode: int
    """Images to latents; of a composed tokenizer without the encoder."""
    decode: int
    generator: int
    encoder: int = 0
    """Of a composed tokenizer."""
    teacher: int = 0
    taught: int = 0
    """Of a teacher that the run trains, with the backward pass of what is trained in it."""
    refine: int = 0
    compare: tuple[float, ...] = ()
    """Features of the image for each active reconstruction term."""


def count_forward(networks: Networks, recipe: Recipe) -> Forward:
    """Count every component's forward pass for one image."""
    tokenizer, size, shape = networks.tokenizer, recipe.data.image_size, networks.tokenizer.latent
    with META, torch.no_grad():
        images = torch.empty(1, 3, size, size)
        latents = torch.empty(1, shape.channels, shape.side, shape.side)
        label, time = torch.zeros(1, dtype=torch.long), torch.empty(1)
        extractor, generator = networks.extractor, networks.generator
        teacher, trains_teacher = networks.teacher, STAGES["teacher"].exists(recipe)
        extracted = torch.empty(0)
        if extractor is not None and recipe.extractor is not None:
            side = recipe.extractor.image_size(size)
            extracted = extractor.normalize(torch.empty(1, 3, side, side))
        written = recipe.tokenizer
        forward = Forward(
            extractor=_count(lambda: extractor(extracted)) if extractor else 0,
            encode=_count(lambda: tokenizer.encode(images)) if written.encodes else 0,
            decode=_count(lambda: tokenizer.decode(latents)) if written.decodes else 0,
            generator=_count(lambda: generator(latents, time, label)) if generator else 0,
            teacher=_count(lambda: teacher(teacher.normalize(images))) if teacher else 0,
            taught=_forward_and_backward(teacher, images) if teacher and trains_teacher else 0,
        )
    if networks.composed is None:
        return forward
    return _of_composed(forward, networks.composed, networks.refiner, recipe)


def _forward_and_backward(encoder: Encoder, images: Tensor) -> int:
    """FLOPs of the tokens and of the gradients of all weights that are not frozen."""
    with torch.enable_grad():
        return _count(lambda: encoder(encoder.normalize(images)).tokens.sum().backward())


def _of_composed(
    forward: Forward, tokenizer: ComposedTokenizer, refiner: PriorRefiner | None, recipe: Recipe
) -> Forward:
    """The same, with the parts of a composed tokenizer, which a training counts differently."""
    encoder, size = tokenizer.encoder, recipe.data.image_size
    terms = recipe.tokenizer_section.reconstruction.active_terms.values()
    with META, torch.no_grad():
        pixels = encoder.normalize(torch.empty(1, 3, size, size))
        tokens = torch.empty(1, encoder.grid**2, encoder.width)

        def encoder_flops(blocks: int | None) -> int:
            return _count(lambda: list(islice(encoder.feature_maps(pixels), blocks)))

        return replace(
            forward,
            encoder=_count(lambda: encoder(pixels)),
            encode=_count(lambda: tokenizer.encode_features(pixels, tokens)),
            refine=_count(lambda: refiner.deprojector(refiner.targets(tokens))) if refiner else 0,
            compare=tuple(term.flops(size, encoder_flops) for term in terms),
        )


def per_image(forward: Forward, recipe: Recipe, last: int | None = None) -> dict[str, float]:
    """FLOPs per image by stage; stages without a rule are left out.

    ``sample`` has the mean over the images of all its sets; ``last`` is the generator's last step,
    None if unknown.
    """
    encoded = forward.encoder + forward.encode
    flops = {
        "extractor": TRAINED * forward.extractor,
        "encoder": TRAINED * forward.encoder,
        "teacher": forward.taught,
        "refine": ONCE * forward.encoder + TRAINED * forward.refine,
        "tokenizer": 0 if recipe.composed is None else _tokenizer_step(forward, recipe),
        "latents": (2 if recipe.data.flip else 1) * encoded if recipe.latents.written else 0,
        "generator": TRAINED * forward.generator + (0 if recipe.latents.stored else encoded),
    }
    if recipe.sample is not None:
        passes = _mean_passes(recipe.sample, latent_shape(recipe), last)
        if passes is not None:
            flops["sample"] = passes * forward.generator + forward.decode
    return {stage: value for stage, value in flops.items() if value}


def _mean_passes(sample: SampleSettings, latent: LatentShape, last: int | None) -> float | None:
    """Mean forward passes of the generator per image; None for an adaptive solver."""
    images = passes = 0
    for wanted in sample.sets(last):
        evaluations = planned_evaluations(wanted.settings.for_latent(latent))
        if evaluations is None:
            return None
        images += wanted.settings.count
        passes += wanted.settings.count * (evaluations.total + evaluations.guided)
    return passes / images


def _tokenizer_step(forward: Forward, recipe: Recipe) -> float:
    """FLOPs of one image in a training step of the tokenizer, without the discriminator."""
    section = recipe.tokenizer_section
    decodes = section.decoder_passes
    encoder = (TRAINED if section.train_encoder else ONCE) * forward.encoder
    trained = TRAINED * (forward.encode + decodes * forward.decode)
    total: float = encoder + ONCE * forward.teacher + trained
    # Features of the original are computed without gradient, those of each decode with.
    passes = ONCE + FROZEN_WITH_GRADIENT * decodes
    return total + sum(passes * flops for flops in forward.compare)


def _count(forward: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()
