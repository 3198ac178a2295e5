"""Configs of the encoders that a run trains itself. No torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from pae_framework.config import (
    HASHED_KERNELS,
    AttentionKernel,
    AttentionSetting,
    Depth,
    EncoderConfig,
    MlpRatio,
    Side,
    Weight,
    Width,
)
from pae_framework.metrics.inception_settings import InceptionWeights

Crop = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="training: smallest side of the random crops, as a fraction of the image side",
    ),
]


class TinyViTConfig(EncoderConfig):
    """Small pre-norm ViT without class token, trained in the run and then frozen.

    Its objective is masked autoencoding (MAE) plus classification of the visible tokens.
    """

    trainable: ClassVar[bool] = True
    without_effect = frozenset({"attention"})
    hashed_values = HASHED_KERNELS

    patch: Side = Field(4, description="side of a patch, px")
    width: Width = Field(96, multiple_of=4, description="token width D")
    depth: Depth = Field(4, description="transformer blocks")
    heads: Width = Field(3, description="attention heads; divides the width")
    mlp_ratio: MlpRatio = Field(4.0, description="MLP width over token width")
    mask_ratio: float = Field(
        0.5, gt=0, lt=1, description="training: fraction of the tokens hidden from the encoder"
    )
    decoder_depth: Depth = Field(1, description="training: blocks that predict the hidden patches")
    class_weight: Weight = Field(
        0.3, description="training: weight of the cross-entropy; 0: no labels"
    )
    crop: Crop = 0.8
    attention: AttentionSetting = "sdpa"

    @model_validator(mode="after")
    def _heads_divide(self) -> TinyViTConfig:
        if self.width % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `width` {self.width}")
        return self

    def attention_kernel(self) -> AttentionKernel:
        """That of ``attention``."""
        return self.attention

    def token_grid(self, image_size: int) -> int:
        """Patches per side."""
        return patch_grid(image_size, self.patch)

    def token_width(self) -> int:
        """The width."""
        return self.width

    def token_heads(self) -> int:
        """The heads."""
        return self.heads

    def feature_maps(self) -> int:
        """One for each block."""
        return self.depth

    def parameters(self, image_size: int) -> int:
        """Patch embedding and blocks; positions are fixed, and the last norm has no parameters."""
        width, hidden = self.width, int(self.width * self.mlp_ratio)
        block = 4 * width * (width + 1) + (width + 1) * hidden + (hidden + 1) * width + 4 * width
        return (3 * self.patch**2 + 1) * width + self.depth * block

    def smoke(self) -> Self:
        """Two narrow blocks."""
        smaller = {"width": 32, "heads": 2, "depth": 2, "decoder_depth": 1}
        return self.model_copy(update={**smaller, "attention": "sdpa"})


class SmallCNNConfig(EncoderConfig):
    """Small convolutional classifier: stages that halve the side and double the channels."""

    trainable: ClassVar[bool] = True

    width: Width = Field(32, multiple_of=8, description="channels of the first stage")
    depth: Depth = Field(3, le=6, description="stages; each halves the side")
    crop: Crop = 0.8

    @property
    def patch(self) -> int:
        """Side in px of the area one token of the last stage covers."""
        return 1 << self.depth

    def token_grid(self, image_size: int) -> int:
        """Side of the last stage's feature map."""
        return patch_grid(image_size, self.patch)

    def token_width(self) -> int:
        """Channels of the last stage."""
        return self.width << (self.depth - 1)

    def token_heads(self) -> int:
        """One per 32 channels."""
        return max(1, self.token_width() // 32)

    def feature_maps(self) -> int:
        """One for each stage."""
        return self.depth

    def parameters(self, image_size: int) -> int:
        """Two 3 x 3 convolutions without bias and two norms per stage."""
        channels = [3, *(self.width << stage for stage in range(self.depth))]
        return sum(9 * a * b + 9 * b * b + 4 * b for a, b in pairwise(channels))

    def activations(self, image_size: int) -> int:
        """The norm's input and the ReLU's output, for both convolutions of each stage."""
        stages = range(self.depth)
        return sum(4 * (self.width << s) * (image_size >> s + 1) ** 2 for s in stages)

    def check_classes(self, count: int) -> None:
        """A classifier needs classes."""
        if count < 2:
            raise ValueError(
                "a classifier learns nothing from one class; use tiny_vit with `class_weight: 0`"
            )

    def smoke(self) -> Self:
        """Eight channels, two stages at most."""
        return self.model_copy(update={"width": 8, "depth": min(self.depth, 2)})


class InceptionConfig(InceptionWeights, EncoderConfig):
    """Inception-v3 of 2015, whose pooled features are those of FID; any image size."""

    def token_grid(self, image_size: int) -> int:
        """One token, the pooled features."""
        return 1

    def token_width(self) -> int:
        """Width of the pooled features."""
        return 2048

    def token_heads(self) -> int:
        """One per 64 channels."""
        return 32

    def feature_maps(self) -> int:
        """The token."""
        return 1

    def parameters(self, image_size: int) -> int:
        """Those of the network, whose size is fixed, with its classifier."""
        return 23_850_960

    def smoke(self) -> Self:
        """Random weights."""
        return self.model_copy(update={"weights": "none"})


def nearest_multiples(size: int, unit: int) -> str:
    """The multiples of ``unit`` around ``size``, for messages: ``24 or 32``."""
    lower = size - size % unit
    return f"{lower} or {lower + unit}" if lower else str(unit)


def patch_grid(image_size: int, patch: int) -> int:
    """Patches per side.

    Raises:
        ValueError: the image side is no multiple of the patch side.
    """
    if image_size % patch:
        raise ValueError(
            f"images of {image_size} px are not divisible into patches of {patch} px; "
            f"use {nearest_multiples(image_size, patch)} px"
        )
    return image_size // patch
