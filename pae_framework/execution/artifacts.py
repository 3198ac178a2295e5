"""Finished networks of a run, loaded from the stages that trained them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

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
    name = "encoder.safetensors"
    if context.reads(stage):
        return context.file(stage, name)
    if stage == "encoder" and context.reads("tokenizer") and context.results("tokenizer").has(name):
        return context.file("tokenizer", name)  # imported with the tokenizer
    return None


def trained_refiner(context: StageContext, encoder: Encoder) -> PriorRefiner | None:
    """The networks of stage ``refine``, frozen, on the device; None if it is not an input."""
    if not context.reads("refine"):
        return None
    refiner = build_refiner(context.recipe.tokenizer, encoder)
    load_weights(refiner, context.file("refine", "weights.safetensors"))
    return freeze(refiner, context)


def trained_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, frozen, on the device."""
    recipe = context.recipe
    encoder = frozen_encoder(context)
    tokenizer = build_tokenizer(recipe.tokenizer, recipe.data.image_size, context.registry, encoder)
    load_weights(tokenizer, context.file("tokenizer", "tokenizer.safetensors"))
    return freeze(tokenizer, context)


def untrained_generator(context: StageContext) -> Generator:
    """The recipe's generator with initial weights."""
    recipe = context.recipe
    assert recipe.generator is not None
    shape = latent_shape(recipe)
    return build_generator(recipe.generator, shape, context.num_classes, context.registry)


def trained_generator(context: StageContext) -> Generator:
    """The run's generator, frozen, on the device, with the weights it samples with."""
    generator = untrained_generator(context)
    load_weights(generator, context.file("generator", "weights.safetensors"))
    return freeze(generator, context)


def freeze(module: Module, context: StageContext) -> Module:
    """The module in eval mode, without gradients for its weights, on the device of ``context``."""
    return module.requires_grad_(False).eval().to(context.device)
