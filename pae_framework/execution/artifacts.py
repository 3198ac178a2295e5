"""Finished networks of a run, loaded from the stages that trained them."""

from __future__ import annotations

from pathlib import Path

from pae_framework.config import LatentShape
from pae_framework.contracts import Encoder, Generator
from pae_framework.execution.context import StageContext
from pae_framework.recipe.components import EncoderComponent
from pae_framework.tensor_files import load_weights
from pae_framework.tokenizer.model import Tokenizer, build_tokenizer
from pae_framework.tokenizer.refinement import PriorRefiner


def new_encoder(component: EncoderComponent, context: StageContext) -> Encoder:
    """An encoder as the recipe names it, not yet trained by the run."""
    cls = context.registry.find("encoder", component.use).component_class()
    encoder = cls(component.config, context.recipe.data.image_size)
    assert isinstance(encoder, Encoder)
    return encoder


def frozen_encoder(context: StageContext, stage: str = "encoder") -> Encoder:
    """The recipe's encoder (or extractor), frozen, on the device.

    Its weights come from its own stage, from an imported tokenizer, or are the pretrained ones that
    the encoder loads itself.
    """
    recipe = context.recipe
    component = recipe.extractor if stage == "extractor" else recipe.tokenizer.encoder
    assert component is not None
    encoder = new_encoder(component, context)
    if (path := _encoder_file(context, stage)) is not None:
        load_weights(encoder, path)
    else:
        encoder.load_pretrained()
    return encoder.requires_grad_(False).eval().to(context.device)


def _encoder_file(context: StageContext, stage: str) -> Path | None:
    """The file of the run that holds the encoder's weights, if there is one."""
    if (folder := context.input(stage)) is not None:
        return folder / "encoder.safetensors"
    if stage == "encoder" and (folder := context.input("tokenizer")) is not None:
        imported = folder / "encoder.safetensors"
        return imported if imported.is_file() else None
    return None


def new_refiner(context: StageContext, encoder: Encoder) -> PriorRefiner:
    """The refinement's networks, untrained."""
    settings = context.recipe.tokenizer.refinement
    assert settings is not None
    config = context.recipe.tokenizer.bottleneck.config
    channels = config.latent_channels(encoder.width)
    return PriorRefiner(settings, encoder, channels)


def trained_refiner(context: StageContext, encoder: Encoder) -> PriorRefiner | None:
    """The refinement's networks, frozen, on the device; None if the stage reads no refinement."""
    if (folder := context.input("refine")) is None:
        return None
    refiner = new_refiner(context, encoder)
    load_weights(refiner, folder / "weights.safetensors")
    return refiner.requires_grad_(False).eval().to(context.device)


def trained_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, frozen, on the device."""
    recipe = context.recipe
    encoder = frozen_encoder(context)
    tokenizer = build_tokenizer(recipe.tokenizer, recipe.data.image_size, context.registry, encoder)
    load_weights(tokenizer, context.require("tokenizer") / "tokenizer.safetensors")
    return tokenizer.requires_grad_(False).eval().to(context.device)


def new_generator(context: StageContext, latent: LatentShape, num_classes: int) -> Generator:
    """The recipe's generator, untrained."""
    component = context.recipe.generator
    assert component is not None
    cls = context.registry.find("generator", component.use).component_class()
    generator = cls(component.config, latent, num_classes)
    assert isinstance(generator, Generator)
    return generator
