"""The component kinds that are the engine's own: modulators, bottlenecks, discriminators.

They stand in the same registry as plugins' components; only the configs live here (no torch).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from pae_framework.config import BottleneckConfig, DiscriminatorConfig, ModulatorConfig
from pae_framework.hub import (
    HubFile,
    default_or_file,
    missing_weights,
    weights_files,
    weights_path,
)


class DAMConfig(ModulatorConfig):
    """Detail-aware modulator: pixels attend to the encoder's tokens and modulate them (PAE)."""

    depth: int = Field(6, gt=0, description="blocks of self-attention, cross-attention, MLP")
    heads: int | None = Field(None, gt=0, description="attention heads; null: the encoder's")
    mlp_ratio: float = Field(4.0, gt=0, description="MLP width over token width")
    cross: bool = Field(
        True, description="whether each block attends to the encoder's tokens; false: pixels only"
    )
    fusion: Literal["sft", "add", "concat", "none"] = Field(
        "sft",
        description="how the detail h enters the tokens u. sft: scale and shift of u; add: W h + "
        "u; concat: W [u, h]; none: h replaces u",
    )

    def smoke(self) -> Self:
        """One block, with the encoder's heads."""
        return self.model_copy(update={"depth": 1, "heads": None})

    def parameters(self, width: int, grid: int, patch: int) -> int:
        """How many numbers its state dict holds, the fixed positions (N x D) with them.

        Args:
            width: D of the encoder's tokens.
            grid: tokens per side.
            patch: side in px of the encoder's patches.
        """
        hidden = int(width * self.mlp_ratio)
        attention = 4 * (width + 1) * width  # q, k, v and the output, each with bias
        mlp = (width + 1) * hidden + (hidden + 1) * width
        norms = 2 * width * (4 if self.cross else 2)
        layer = attention * (2 if self.cross else 1) + mlp + norms
        embedding = (3 * patch**2 + 1) * width + grid**2 * width
        widths = {"sft": (1, 2), "add": (1, 1), "concat": (2, 1), "none": (0, 0)}
        inputs, outputs = widths[self.fusion]
        fusion = (inputs * width + 1) * outputs * width
        final_norm = 0 if self.fusion == "none" else 2 * width
        return embedding + self.depth * layer + fusion + final_norm


class FinetuneConfig(ModulatorConfig):
    """A trainable copy of the frozen encoder takes its place (PAE's Table 3b, finetuning).

    The frozen one is kept: features and targets come from it.
    """


class NoModulatorConfig(ModulatorConfig):
    """No modulator: the encoder's tokens go to the bottleneck as they are (RAE)."""


class SphereConfig(BottleneckConfig):
    """Projection to few channels, then RMS norm per token: each token on a sphere (PAE)."""

    channels: int = Field(32, gt=0, description="latent channels d; tokens have norm sqrt(d)")

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the configured ones."""
        return self.channels


class GaussianConfig(BottleneckConfig):
    """Projection to a mean and a log-variance per channel, sampled in training (KL-VAE)."""

    channels: int = Field(32, gt=0, description="latent channels d")

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the configured ones."""
        return self.channels


class IdentityConfig(BottleneckConfig):
    """No projection: tokens standardised by statistics of the training images (RAE)."""

    statistics_images: int = Field(
        10_000, gt=0, description="training images the mean and variance are measured on"
    )
    eps: ClassVar[float] = 1e-5

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the width of the tokens."""
        return token_width


class PatchGANConfig(DiscriminatorConfig):
    """Convolutional discriminator of overlapping patches (VQGAN, latent diffusion)."""

    layers: int = Field(3, gt=0, description="convolutions between the first and the last")
    width: int = Field(64, gt=0, description="channels after the first; doubled up to eightfold")

    def check_image_size(self, image_size: int) -> None:
        """Refuse images of which no patch is left."""
        if (image_size >> self.layers) < 3:
            least = 3 << self.layers
            raise ValueError(
                f"its {self.layers} `layers` need images of {least} px or more, not {image_size}"
            )

    def parameters(self, image_size: int) -> int:
        """How many numbers its weights hold."""
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

    layers: tuple[NonNegativeInt, ...] = Field(
        (2, 5, 8, 11), description="blocks, from 0, with a head on each, besides that on the last"
    )
    weights: Annotated[str, AfterValidator(default_or_file)] = Field(
        "default",
        description="of the frozen network. `default`: from the hub; a local file in the layout of "
        "timm, RAE's release or facebookresearch/dino; `none`: random",
    )
    resolution: int = Field(224, ge=16, multiple_of=8, description="side of its input, px")
    width: int = Field(384, gt=0, description="its token width; 384 but with `weights: none`")
    depth: int = Field(12, gt=0, description="its blocks; 12 but with `weights: none`")
    heads: int = Field(6, gt=0, description="its attention heads; 6 but with `weights: none`")

    @model_validator(mode="after")
    def _of_one_network(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `width` {self.width}")
        if any(layer >= self.depth for layer in self.layers):
            raise ValueError(f"`layers` go from 0 to {self.depth - 1}, the last block")
        shape = (self.resolution, self.width, self.depth, self.heads)
        if self.weights != "none" and shape != (224, 384, 12, 6):
            raise ValueError("another network than DINO's ViT-S/8 at 224 px needs `weights: none`")
        return self

    def parameters(self, image_size: int) -> int:
        """How many numbers its weights hold, the frozen network's with them."""
        width, tokens = self.width, (self.resolution // self.patch) ** 2
        head = 10 * width**2 + 7 * width + 1  # kernels 1 and 9; biases, norms and the last
        block = 12 * width**2 + 13 * width
        frozen = self.depth * block + (3 * self.patch**2 + tokens + 5) * width
        return (1 + len(self.layers)) * head + frozen

    def files(self) -> Mapping[str, Path]:
        """Its weights, where they are a local file."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """Its weights, where they are not on this machine."""
        return missing_weights(self.weights, DINO_VIT_S8)

    def fetch(self) -> str | None:
        """Download its weights."""
        if self.missing() is None:
            return None
        weights_path(self.weights, DINO_VIT_S8)
        return DINO_VIT_S8.where

    def smoke(self) -> Self:
        """A small untrained network."""
        small = {"resolution": 32, "width": 48, "depth": 2, "heads": 2, "layers": (0, 1)}
        return self.model_copy(update={**small, "weights": "none"})


ENGINE_COMPONENTS = (
    # kind, name, target, config, summary
    (
        "modulator",
        "dam",
        "pae_framework.tokenizer.modulator:DetailAwareModulator",
        "pae_framework.engine_components:DAMConfig",
        "detail-aware modulator: adds pixel detail to the encoder's tokens (PAE)",
    ),
    (
        "modulator",
        "finetune",
        "pae_framework.tokenizer.finetune:FinetunedEncoder",
        "pae_framework.engine_components:FinetuneConfig",
        "a trainable copy of the encoder in its place",
    ),
    (
        "modulator",
        "none",
        "pae_framework.tokenizer.modulator:NoModulator",
        "pae_framework.engine_components:NoModulatorConfig",
        "leaves the encoder's tokens as they are (RAE)",
    ),
    (
        "bottleneck",
        "sphere",
        "pae_framework.tokenizer.bottleneck:Sphere",
        "pae_framework.engine_components:SphereConfig",
        "few channels, every token on a sphere of radius sqrt(d) (PAE, GAE)",
    ),
    (
        "bottleneck",
        "gaussian",
        "pae_framework.tokenizer.bottleneck:Gaussian",
        "pae_framework.engine_components:GaussianConfig",
        "few channels with a learned variance, sampled in training (KL-VAE)",
    ),
    (
        "bottleneck",
        "identity",
        "pae_framework.tokenizer.bottleneck:Identity",
        "pae_framework.engine_components:IdentityConfig",
        "the tokens themselves, standardised by data statistics (RAE)",
    ),
    (
        "discriminator",
        "patchgan",
        "pae_framework.tokenizer.discriminators.patchgan:PatchGAN",
        "pae_framework.engine_components:PatchGANConfig",
        "convolutions that judge overlapping patches (VQGAN, VA-VAE)",
    ),
    (
        "discriminator",
        "dino",
        "pae_framework.tokenizer.discriminators.dino:DinoDiscriminator",
        "pae_framework.engine_components:DinoDiscriminatorConfig",
        "heads on the features of a frozen DINO ViT-S/8 (RAE)",
    ),
)
