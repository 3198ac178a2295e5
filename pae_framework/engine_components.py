"""The component kinds that are the engine's own, few and small: modulators and bottlenecks.

They stand in the same registry as plugins' components; only the configs live here (no torch).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pae_framework.config import BottleneckConfig, DiscriminatorConfig, ModulatorConfig


class DAMConfig(ModulatorConfig):
    """Detail-aware modulator: pixels attend to the encoder's tokens and modulate them (PAE)."""

    depth: int = Field(6, gt=0, description="blocks of self-attention, cross-attention, MLP")
    heads: int | None = Field(None, gt=0, description="attention heads; null: the encoder's")
    mlp_ratio: float = Field(4.0, gt=0, description="MLP width over token width")


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
)
