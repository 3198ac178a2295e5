"""A recipe's latents, as far as they are known before anything is built or read. No torch."""

from __future__ import annotations

from pathlib import Path

from pae_framework.config import LatentShape
from pae_framework.data.data_settings import SHARDS
from pae_framework.recipe.models import Recipe

LATENT_FILES = "latents_*"
"""File names of latents (:data:`SHARDS`) and of their statistics."""


def latent_shape(recipe: Recipe) -> LatentShape:
    """Shape of one latent: channels of the bottleneck, on the encoder's token grid."""
    encoder, bottleneck = recipe.tokenizer.encoder.config, recipe.tokenizer.bottleneck.config
    grid = encoder.token_grid(recipe.data.image_size)
    return LatentShape(bottleneck.latent_channels(encoder.token_width()), grid)


def missing_latents(folder: str) -> str | None:
    """Say that the folder of latents which a recipe names is not there; None: it is."""
    path = Path(folder).expanduser()
    if any(path.glob(SHARDS)):
        return None
    return f"no latents in {path}: expected files like latents_rank00_shard000.safetensors"


def known_classes(recipe: Recipe) -> int | None:
    """Classes of the training images, told by their source or else stated for the generator.

    None: they must be counted.
    """
    counted = recipe.data.train.config.class_count()
    if counted is None and recipe.generator is not None:
        return recipe.generator.config.stated_classes()
    return counted
