"""Configs of GAE's encoder and of its teacher. No torch."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from pae_encoders.config import patch_grid
from pae_encoders.families import DINOV2
from pae_encoders.vfm_config import DINOv2Config, model_name
from pae_framework.config import EncoderConfig, Width, block_activations
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


class GaeTeacherConfig(DINOv2Config):
    """GAE's semantic teacher, trained in the run: DINOv2's tokens compressed to few channels."""

    trainable: ClassVar[bool] = True

    model: str = model_name(DINOV2, "vit_large_patch14_dinov2", "timm's name of a DINOv2 model")
    channels: Width = Field(32, description="channels of the tokens; those of the latents in GAE")
    window: Width = Field(
        1, description="side in tokens of the windows that are compressed; divides the grid"
    )

    @property
    def neck_heads(self) -> int:
        """Heads of the attention: one per 64 channels, or the next smaller divisor of the width."""
        width = self.form.width
        return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)

    def token_grid(self, image_size: int) -> int:
        """DINOv2's, if the window divides it."""
        grid = super().token_grid(image_size)
        if grid % self.window:
            raise ValueError(f"`window` {self.window} does not divide the grid of {grid} tokens")
        return grid

    def token_width(self) -> int:
        """The channels."""
        return self.channels

    def token_heads(self) -> int:
        """One."""
        return 1

    def poolings(self) -> tuple[str, ...]:
        """The mean token."""
        return ("mean",)

    def feature_maps(self) -> int:
        """One: the tokens."""
        return 1

    def parameters(self, image_size: int) -> int:
        """Those of DINOv2, which are not trained, of positions, attention and compression."""
        width, area = self.form.width, self.window**2
        neck = self.token_grid(image_size) ** 2 * width + 4 * width**2
        return self.form.parameters() + neck + area**2 * width * self.channels

    def frozen_parameters(self, image_size: int) -> int:
        """Those of DINOv2."""
        return self.form.parameters()

    def activations(self, image_size: int) -> int:
        """Numbers kept by the attention and by the block that decodes: DINOv2 keeps none."""
        return block_activations(
            2 * 12 * self.form.width**2, self.token_grid(image_size) ** 2, self.form.width
        )
