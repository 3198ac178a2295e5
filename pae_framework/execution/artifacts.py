"""Finished networks of a run, loaded from the stages that trained them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from pae_framework.build import build_encoder, build_generator, build_refiner, build_tokenizer
from pae_framework.contracts import Encoder, Generator
from pae_framework.execution.context import StageContext
from pae_framework.recipe.derived import latent_shape
from pae_framework.tensor_files import load_weights
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.tokenizer.refinement import PriorRefiner

Module = TypeVar("Module", bound=nn.Module)


def frozen_encoder(context: StageContext, stage: str = "encoder") -> Encoder:
    """The recipe's encoder (or extractor), frozen, on the device.

    Its weights come from its own stage, from an imported tokenizer, or from
    :meth:`Encoder.load_pretrained`.
    """
    recipe = context.recipe
    component = recipe.extractor if stage == "extractor" else recipe.tokenizer.encoder
    assert component is not None
    encoder = build_encoder(component, recipe.data.image_size, context.registry)
    if (path := _encoder_file(context, stage)) is not None:
        load_weights(encoder, path)
    else:
        encoder.load_pretrained()
    return freeze(encoder, context)


def _encoder_file(context: StageContext, stage: str) -> Path | None:
    """The run's file of the encoder's weights; None if there is none."""
    if (folder := context.input(stage)) is not None:
        return folder / "encoder.safetensors"
    if stage == "encoder" and (folder := context.input("tokenizer")) is not None:
        imported = folder / "encoder.safetensors"
        return imported if imported.is_file() else None
    return None


def trained_refiner(context: StageContext, encoder: Encoder) -> PriorRefiner | None:
    """The networks of stage ``refine``, frozen, on the device; None if it is not an input."""
    if (folder := context.input("refine")) is None:
        return None
    refiner = build_refiner(context.recipe.tokenizer, encoder)
    load_weights(refiner, folder / "weights.safetensors")
    return freeze(refiner, context)


def trained_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, frozen, on the device."""
    recipe = context.recipe
    encoder = frozen_encoder(context)
    tokenizer = build_tokenizer(recipe.tokenizer, recipe.data.image_size, context.registry, encoder)
    load_weights(tokenizer, context.require("tokenizer") / "tokenizer.safetensors")
    return freeze(tokenizer, context)


def untrained_generator(context: StageContext, device: torch.device | None = None) -> Generator:
    """The recipe's generator with initial weights, on ``device`` (None: the CPU)."""
    recipe = context.recipe
    assert recipe.generator is not None
    # Outside of the block below, because it may read the training images.
    shape, classes = latent_shape(recipe), context.num_classes
    with device or nullcontext():
        return build_generator(recipe.generator, shape, classes, context.registry)


def trained_generator(context: StageContext) -> Generator:
    """The run's generator, frozen, on the device, with the weights it samples with."""
    generator = untrained_generator(context)
    load_weights(generator, context.require("generator") / "weights.safetensors")
    return freeze(generator, context)


def freeze(module: Module, context: StageContext) -> Module:
    """The module in eval mode, without gradients for its weights, on the device of ``context``."""
    return module.requires_grad_(False).eval().to(context.device)
