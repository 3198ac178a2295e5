"""Finished parts of a run, loaded from the stages that made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pae_framework.build import build_encoder, build_refiner, build_tokenizer
from pae_framework.contracts import Encoder
from pae_framework.data.pixels import to_float
from pae_framework.execution.context import StageContext
from pae_framework.tensor_files import load_weights
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.tokenizer.refinement import PriorRefiner


def frozen_encoder(context: StageContext, stage: str = "encoder") -> Encoder:
    """The recipe's encoder (or extractor) with its weights: frozen, on the device.

    They are what its own stage learned, what came with an imported tokenizer, or those the encoder
    loads itself.
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
    """The encoder's weights among the files of the run, if they are."""
    if (folder := context.input(stage)) is not None:
        return folder / "encoder.safetensors"
    if stage == "encoder" and (folder := context.input("tokenizer")) is not None:
        imported = folder / "encoder.safetensors"
        return imported if imported.is_file() else None
    return None


def trained_refiner(context: StageContext, encoder: Encoder) -> PriorRefiner | None:
    """The refinement's networks, frozen; None where this run has no refinement to look at."""
    if (folder := context.input("refine")) is None:
        return None
    refiner = build_refiner(context.recipe.tokenizer, encoder)
    load_weights(refiner, folder / "weights.safetensors")
    return refiner.requires_grad_(False).eval().to(context.device)


def trained_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, frozen."""
    recipe = context.recipe
    encoder = frozen_encoder(context)
    tokenizer = build_tokenizer(recipe.tokenizer, recipe.data.image_size, context.registry, encoder)
    load_weights(tokenizer, context.require("tokenizer") / "tokenizer.safetensors")
    return tokenizer.requires_grad_(False).eval().to(context.device)


@dataclass(frozen=True)
class FeatureExtractor:
    """Pooled features of a frozen network, for Frechet distances."""

    name: str
    network: Encoder
    device: torch.device
    batch: int = 250

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) float64 on the CPU of uint8 images (M, 3, S, S)."""
        parts = []
        for chunk in images.split(self.batch):
            pixels = self.network.normalize(to_float(chunk.to(self.device)))
            parts.append(self.network(pixels).pooled.double().cpu())
        return torch.cat(parts)
