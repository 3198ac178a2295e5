"""Finished networks of a run, loaded from the stages that trained them."""

from __future__ import annotations

from pathlib import Path

from pae_framework.build import build_encoder, build_refiner, build_tokenizer
from pae_framework.contracts import Encoder
from pae_framework.execution.context import StageContext
from pae_framework.tensor_files import load_weights
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.tokenizer.refinement import PriorRefiner


def frozen_encoder(context: StageContext, stage: str = "encoder") -> Encoder:
    """The recipe's encoder (or extractor), frozen, on the device.

    Its weights come from its own stage, from an imported tokenizer, or are the pretrained ones that
    the encoder loads itself.
    """
    recipe = context.recipe
    component = recipe.extractor if stage == "extractor" else recipe.tokenizer.encoder
    assert component is not None
    encoder = build_encoder(component, recipe.data.image_size, context.registry)
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


def trained_refiner(context: StageContext, encoder: Encoder) -> PriorRefiner | None:
    """The refinement's networks, frozen, on the device; None if the stage reads no refinement."""
    if (folder := context.input("refine")) is None:
        return None
    refiner = build_refiner(context.recipe.tokenizer, encoder)
    load_weights(refiner, folder / "weights.safetensors")
    return refiner.requires_grad_(False).eval().to(context.device)


def trained_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, frozen, on the device."""
    recipe = context.recipe
    encoder = frozen_encoder(context)
    tokenizer = build_tokenizer(recipe.tokenizer, recipe.data.image_size, context.registry, encoder)
    load_weights(tokenizer, context.require("tokenizer") / "tokenizer.safetensors")
    return tokenizer.requires_grad_(False).eval().to(context.device)
