"""Parameters of the built-in decoders. No torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pae_framework.config import (
    HASHED_KERNELS,
    AttentionKernel,
    AttentionSetting,
    DecoderConfig,
    Depth,
    Side,
    Width,
    block_activations,
)
from pae_framework.convolution_settings import (
    PyramidSettings,
    convolution,
    middle_activations,
    middle_parameters,
)
from pae_framework.swiglu_settings import SwigluSettings


class VitDecoderConfig(DecoderConfig):
    """ViT decoder. PAE's and RAE's ViT-L: width 1024, depth 24, heads 16, patch 16."""

    without_effect = frozenset({"attention"})
    hashed_values = HASHED_KERNELS

    width: Width = Field(multiple_of=4, description="token width Dd inside the decoder")
    depth: Depth = Field(description="transformer blocks")
    heads: Width = Field(description="attention heads; divides `width`")
    mlp: Width | None = Field(None, description="hidden width of the MLPs; null: 4 x `width`")
    patch: Side = Field(description="side in px of the image patch of a token")
    attention: AttentionSetting = "sdpa"

    @model_validator(mode="after")
    def _heads_divide(self) -> VitDecoderConfig:
        if self.width % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `width` {self.width}")
        return self

    def attention_kernel(self) -> AttentionKernel:
        """That of ``attention``."""
        return self.attention

    def image_size(self, grid: int) -> int:
        """Side in px of the decoded images: ``patch`` times the grid."""
        return self.patch * grid

    def parameters(self, width: int, grid: int) -> int:
        """Parameters of embedding, class token, blocks, norm and head; positions are fixed."""
        inner, hidden = self.width, self.mlp or 4 * self.width
        mlp = (inner + 1) * hidden + (hidden + 1) * inner
        block = 4 * inner * (inner + 1) + mlp + 4 * inner
        head = 2 * inner + (inner + 1) * 3 * self.patch**2
        return (width + 1) * inner + inner + self.depth * block + head

    def activations(self, grid: int) -> int:
        """Numbers stored by the blocks, which also process a class token."""
        weights = self.depth * 12 * self.width**2
        return block_activations(weights, grid**2 + 1, self.width)

    def smoke(self) -> Self:
        """One narrow block."""
        narrow = {"width": 32, "depth": 1, "heads": 2, "mlp": None, "attention": "sdpa"}
        return self.model_copy(update=narrow)


class LdmDecoderConfig(PyramidSettings, DecoderConfig):
    """Convolutional decoder of latent diffusion (KL-VAE, VA-VAE).

    The defaults are those of VA-VAE's f16d32. Stable Diffusion's f8d4 has multipliers 1 2 4 4 and
    attention 0.
    """

    def image_size(self, grid: int) -> int:
        """The side after doubling that of the grid once per further level."""
        return self.factor * grid

    def parameters(self, width: int, grid: int) -> int:
        """Parameters of all convolutions and norms."""
        finest = self.decoder_levels()[-1].width
        start = convolution(width, width, side=1) + convolution(width, self.middle)
        levels = sum(level.parameters() for level in self.decoder_levels())
        end = 2 * finest + convolution(finest, 3)
        return start + middle_parameters(self.middle) + levels + end

    def activations(self, grid: int) -> int:
        """Numbers kept by all convolutions and norms, without those that enter the first."""
        size = self.image_size(grid)
        levels = sum(
            level.activations(size >> level.halvings, upsamples=True)
            for level in self.decoder_levels()
        )
        finest = self.decoder_levels()[-1].width
        return levels + grid**2 * middle_activations(self.middle) + size**2 * 3 * finest

    def smoke(self) -> Self:
        """Few channels at the same resolutions."""
        return self.model_copy(update=self.shrunk())


class GaeDecoderConfig(SwigluSettings, DecoderConfig):
    """ViT-L decoder of GAE."""

    def image_size(self, grid: int) -> int:
        """Side in px of the decoded images: ``patch`` times the grid."""
        return self.patch * grid

    def parameters(self, width: int, grid: int) -> int:
        """Parameters of input projection, positions, blocks and head."""
        return self.network_parameters(grid, ends=width + 3 * self.patch**2)

    def activations(self, grid: int) -> int:
        """Numbers kept by the blocks and the last norm."""
        return self.network_activations(grid)

    def smoke(self) -> Self:
        """One narrow block."""
        return self.model_copy(update=self.shrunk())
