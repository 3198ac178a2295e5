"""Config of latent diffusion's convolutional encoder. No torch."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from pae_framework.config import EncoderConfig, Width
from pae_framework.convolution_settings import (
    PyramidSettings,
    convolution,
    middle_activations,
    middle_parameters,
)


class LdmEncoderConfig(PyramidSettings, EncoderConfig):
    """Convolutional encoder of latent diffusion (KL-VAE, VA-VAE), trained with the tokenizer.

    The defaults are those of VA-VAE's f16d32. Stable Diffusion's f8d4 has multipliers 1 2 4 4,
    attention 0 and latent 4. Tokens are a mean and a log-variance per latent channel, so the
    bottleneck is `diagonal_gaussian`.
    """

    trained_with_tokenizer: ClassVar[bool] = True
    has_last_layer: ClassVar[bool] = True

    latent: Width = Field(32, description="latent channels; tokens have twice as many")

    def token_grid(self, image_size: int) -> int:
        """The side after halving it once per further level."""
        if image_size % self.factor:
            raise ValueError(
                f"{len(self.multipliers)} levels need an image side divisible by {self.factor}, "
                f"found {image_size} px"
            )
        return image_size // self.factor

    def token_width(self) -> int:
        """Mean and log-variance of each latent channel."""
        return 2 * self.latent

    def feature_maps(self) -> int:
        """One: the tokens."""
        return 1

    def parameters(self, image_size: int) -> int:
        """Parameters of all convolutions and norms."""
        width, tokens = self.middle, self.token_width()
        ends = convolution(3, self.channels) + 2 * width + convolution(width, tokens)
        levels = sum(level.parameters() for level in self.encoder_levels())
        return ends + levels + middle_parameters(width) + convolution(tokens, tokens, side=1)

    def activations(self, image_size: int) -> int:
        """Numbers kept by all convolutions and norms."""
        sides = (image_size >> level.halvings for level in self.encoder_levels())
        levels = sum(
            level.activations(side, upsamples=False)
            for level, side in zip(self.encoder_levels(), sides, strict=True)
        )
        kept = middle_activations(self.middle) + 3 * self.middle + self.token_width()
        return levels + self.token_grid(image_size) ** 2 * kept + 3 * image_size**2

    def smoke(self) -> Self:
        """Few channels at the same resolutions."""
        return self.model_copy(update=self.shrunk())
