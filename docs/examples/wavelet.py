"""A tokenizer without weights: averages and differences of neighboring pixels (Haar wavelets).

Each level turns 2 x 2 pixels of a channel into their mean and three differences. Nothing is lost.
"""

import torch
from pydantic import Field

from pae_framework import hookimpl
from pae_framework.config import LatentShape, TokenizerConfig
from pae_framework.contracts import Posterior, Tokenizer

pae_api = 1

_SIGNS = ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1))
"""Of the 2 x 2 pixels in each of the four numbers."""


class WaveletConfig(TokenizerConfig):
    """Haar wavelets."""

    levels: int = Field(2, gt=0, le=4, description="times that the side is halved")

    def latent_shape(self, image_size):
        """Four times the channels and half the side for each level."""
        if image_size % (1 << self.levels):
            raise ValueError(f"images of {image_size} px cannot be halved {self.levels} times")
        return LatentShape(3 * 4**self.levels, image_size >> self.levels)


class Wavelet(Tokenizer):
    """Four numbers for each 2 x 2 pixels, at every level."""

    def __init__(self, config, image_size):
        super().__init__()
        self.levels = config.levels
        self.latent = config.latent_shape(image_size)
        self.register_buffer("matrix", torch.tensor(_SIGNS) / 2)  # orthogonal

    def encode(self, images, generator=None):
        """Latents (B, 3 * 4**levels, h, w) of images (B, 3, S, S) in [0, 1]."""
        x = 2 * images - 1
        for _ in range(self.levels):
            B, C, S, _ = x.shape
            pixels = x.reshape(B, C, S // 2, 2, S // 2, 2).permute(0, 2, 4, 1, 3, 5)
            numbers = pixels.reshape(B, S // 2, S // 2, C, 4) @ self.matrix.T
            x = numbers.flatten(3).permute(0, 3, 1, 2)
        return Posterior(x)

    def decode(self, latents):
        """Images (B, 3, S, S) of latents (B, C, h, w)."""
        x = latents
        for _ in range(self.levels):
            B, C, S, _ = x.shape
            numbers = x.permute(0, 2, 3, 1).reshape(B, S, S, C // 4, 4) @ self.matrix
            pixels = numbers.reshape(B, S, S, C // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
            x = pixels.reshape(B, C // 4, 2 * S, 2 * S)
        return (x.float() + 1) / 2


@hookimpl
def pae_register_tokenizers(register):
    register(
        "wavelet",
        target=f"{__name__}:Wavelet",
        config=f"{__name__}:WaveletConfig",
        summary="Haar wavelets of the pixels, without weights",
    )
