"""Configs of the built-in bottlenecks. No torch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pae_framework.config import BottleneckConfig, Count, Width


class SphereConfig(BottleneckConfig):
    """Projection to few channels, then RMS norm per token: each token on a sphere (PAE)."""

    channels: Width = Field(32, description="latent channels d; tokens have norm sqrt(d)")

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the configured ones."""
        return self.channels


class GaussianConfig(BottleneckConfig):
    """Projection to a mean and a log-variance per channel, sampled in training (KL-VAE)."""

    has_moments: ClassVar[bool] = True

    channels: Width = Field(32, description="latent channels d")

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the configured ones."""
        return self.channels


class DiagonalGaussianConfig(BottleneckConfig):
    """No projection: tokens are a mean and a log-variance per latent channel (latent diffusion)."""

    has_moments: ClassVar[bool] = True
    projects: ClassVar[bool] = False

    def latent_channels(self, token_width: int) -> int:
        """Half of the width of the tokens."""
        if token_width % 2:
            raise ValueError(
                f"tokens are a mean and a log-variance, but their width {token_width} is odd"
            )
        return token_width // 2


class IdentityConfig(BottleneckConfig):
    """No projection: tokens standardized by statistics of the training images (RAE)."""

    projects: ClassVar[bool] = False

    statistics_images: Count = Field(
        10_000, description="training images the mean and variance are measured on"
    )
    eps: ClassVar[float] = 1e-5

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the width of the tokens."""
        return token_width
