"""Configs of the built-in discriminators. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from pae_framework.config import Depth, DiscriminatorConfig, LayerIndex, PathText, Side, Width
from pae_framework.hub import (
    HubFile,
    default_or_file,
    missing_weights,
    weights_files,
    weights_path,
)


class PatchGANConfig(DiscriminatorConfig):
    """Convolutional discriminator of overlapping patches (VQGAN, latent diffusion)."""

    layers: int = Field(3, gt=0, le=12, description="convolutions between the first and the last")
    width: Width = Field(64, description="channels after the first; doubled up to eightfold")

    def check_image_size(self, image_size: int) -> None:
        """Reject images that are too small to give a logit."""
        if (image_size >> self.layers) < 3:
            least = 3 << self.layers
            raise ValueError(
                f"its {self.layers} `layers` need images of {least} px or more, not {image_size}"
            )

    def parameters(self, image_size: int) -> int:
        """Number of parameters."""
        widths = [self.width * min(1 << depth, 8) for depth in range(self.layers + 1)]
        kernels = 16 * (3 * widths[0] + sum(a * b for a, b in pairwise(widths)) + widths[-1])
        return kernels + widths[0] + 1 + 2 * sum(widths[1:])  # biases and norms

    def smoke(self) -> Self:
        """One layer and few channels."""
        return self.model_copy(update={"layers": 1, "width": 8})


DINO_VIT_S8 = HubFile("timm/vit_small_patch8_224.dino")
"""DINO's ViT-S/8 (Caron et al. 2021)."""


class DinoDiscriminatorConfig(DiscriminatorConfig):
    """Heads on the features of a frozen DINO ViT-S/8 (RAE)."""

    patch: ClassVar[int] = 8

    layers: tuple[LayerIndex, ...] = Field(
        (2, 5, 8, 11),
        description="blocks, counted from 0, that get a head each, besides the last block",
    )
    weights: Annotated[PathText, AfterValidator(default_or_file)] = Field(
        "default",
        description="of the frozen network. `default`: from the hub; a local file in the layout of "
        "timm, RAE's release or facebookresearch/dino; `none`: random",
    )
    resolution: Side = Field(224, ge=16, multiple_of=8, description="side of its input, px")
    width: Width = Field(384, description="its token width; 384 unless `weights: none`")
    depth: Depth = Field(12, description="its number of blocks; 12 unless `weights: none`")
    heads: Width = Field(6, description="its attention heads; 6 unless `weights: none`")

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `width` {self.width}")
        if any(layer >= self.depth for layer in self.layers):
            raise ValueError(f"`layers` must be from 0 to {self.depth - 1}, the last block")
        shape = (self.resolution, self.width, self.depth, self.heads)
        if self.weights != "none" and shape != (224, 384, 12, 6):
            raise ValueError("a network other than DINO's ViT-S/8 at 224 px needs `weights: none`")
        return self

    def parameters(self, image_size: int) -> int:
        """Number of parameters, including the frozen network's."""
        width, tokens = self.width, (self.resolution // self.patch) ** 2
        head = 10 * width**2 + 7 * width + 1  # kernels 1 and 9; biases, norms and the last
        block = 12 * width**2 + 13 * width
        frozen = self.depth * block + (3 * self.patch**2 + tokens + 5) * width
        return (1 + len(self.layers)) * head + frozen

    def files(self) -> Mapping[str, Path]:
        """The file of the weights, if it is a local one."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """Names the weights if they are not on this machine."""
        return missing_weights(self.weights, DINO_VIT_S8)

    def fetch(self) -> str | None:
        """Download the weights."""
        if self.missing() is None:
            return None
        weights_path(self.weights, DINO_VIT_S8)
        return DINO_VIT_S8.where

    def smoke(self) -> Self:
        """A small untrained network."""
        small = {"resolution": 32, "width": 48, "depth": 2, "heads": 2, "layers": (0, 1)}
        return self.model_copy(update={**small, "weights": "none"})
