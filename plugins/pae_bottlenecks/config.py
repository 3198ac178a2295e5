"""Configs of the built-in bottlenecks. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field

from pae_framework.config import BottleneckConfig, Count, PathText, Weight, Width
from pae_framework.system.files import file_problem


class SphereConfig(BottleneckConfig):
    """Projection to few channels, then RMS norm per token: each token on a sphere (PAE)."""

    channels: Width = Field(32, description="latent channels d; tokens have norm sqrt(d)")

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the configured ones."""
        return self.channels


class NoisySphereConfig(BottleneckConfig):
    """No projection: RMS norm of every token, in training with noise of random strength (GAE)."""

    projects: ClassVar[bool] = False

    noise: Weight = Field(
        0.25,
        description="training: deviation of the strength s ~ N(0, noise^2) of the noise, one per "
        "image; 0: no noise",
    )

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the width of the tokens."""
        return token_width


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
    standardizes: ClassVar[bool] = True

    statistics_images: Count = Field(
        10_000, description="training images the mean and variance are measured on"
    )
    statistics: PathText | None = Field(
        None,
        description="file with RAE's statistics (stat.pt: `mean` and `var`, per channel and "
        "position; either may be None); null: measured",
    )

    def files(self) -> Mapping[str, Path]:
        """The file of the statistics, if there is one."""
        return {} if self.statistics is None else {"statistics": Path(self.statistics).expanduser()}

    def missing(self) -> str | None:
        """Names the file if it is not on this machine."""
        return next(filter(None, map(file_problem, self.files().values())), None)

    def smoke(self) -> Self:
        """Statistics that are measured."""
        return self.model_copy(update={"statistics": None})

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents: the width of the tokens."""
        return token_width
