"""The shape of a recipe's latents, known before anything is built. No torch."""

from __future__ import annotations

from pae_framework.config import LatentShape
from pae_framework.recipe.models import Recipe


def latent_shape(recipe: Recipe) -> LatentShape:
    """Shape of one latent: channels of the bottleneck, on the encoder's token grid."""
    encoder, bottleneck = recipe.tokenizer.encoder.config, recipe.tokenizer.bottleneck.config
    grid = encoder.token_grid(recipe.data.image_size)
    return LatentShape(bottleneck.latent_channels(encoder.token_width()), grid)
