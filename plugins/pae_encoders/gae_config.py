"""Config of GAE's encoder. No torch."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from pae_encoders.config import patch_grid
from pae_framework.config import EncoderConfig, Width
from pae_framework.swiglu_settings import SwigluSettings


class GaeEncoderConfig(SwigluSettings, EncoderConfig):
    """ViT-L of GAE with an adapter to few channels, trained with the tokenizer.

    Tokens have the channels of the latents, so the bottleneck is `noisy_sphere`.
    """

    trained_with_tokenizer: ClassVar[bool] = True
    has_last_layer: ClassVar[bool] = True

    latent: Width = Field(32, description="latent channels, to which the adapter maps the tokens")

    def token_grid(self, image_size: int) -> int:
        """Patches per side."""
        return patch_grid(image_size, self.patch)

    def token_width(self) -> int:
        """The latent channels."""
        return self.latent

    def feature_maps(self) -> int:
        """One: the tokens."""
        return 1

    def parameters(self, image_size: int) -> int:
        """Parameters of patches, positions, blocks, output projection and adapter."""
        ends = 3 * self.patch**2 + self.width + self.latent
        return self.network_parameters(self.token_grid(image_size), ends)

    def activations(self, image_size: int) -> int:
        """Numbers kept by the blocks and the last norm."""
        return self.network_activations(self.token_grid(image_size))

    def smoke(self) -> Self:
        """One narrow block."""
        return self.model_copy(update=self.shrunk())
