"""Bottlenecks: turn the projector's output, or the tokens themselves, into latents.

Latents are always float32, also under autocast: they are compared, rotated and stored.
Legend: B batch, D token width, C latent channels, h = w grid side.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from pae_bottlenecks.config import (
    DiagonalGaussianConfig,
    GaussianConfig,
    IdentityConfig,
    NoisySphereConfig,
    SphereConfig,
)
from pae_framework.contracts import Bottleneck, Posterior
from pae_framework.data.statistics import STANDARD_EPS, load_standardization
from pae_framework.errors import DataError
from pae_framework.layers import rms_norm
from pae_framework.seeding import on_device, randn


class Sphere(Bottleneck):
    """RMS norm of each token over its channels, without affine (PAE, arXiv 2605.07915, section 3).

    PAE's code computes it in float32 too, but casts the latents back to the input's dtype.
    """

    def __init__(self, config: SphereConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.in_channels = self.channels = config.channels

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, C, h, w) of x (B, C, h, w)."""
        return Posterior(rms_norm(x))


class NoisySphere(Bottleneck):
    """RMS norm of the tokens themselves; in training, plus s N(0, 1) (GAE, arXiv 2603.10365).

    The strength s ~ N(0, noise^2) is one number per image, so most images get little noise.
    """

    projected = False

    def __init__(self, config: NoisySphereConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.in_channels = self.channels = width
        self.noise = config.noise

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, D, h, w) of x (B, D, h, w): with noise; without a generator, the mean."""
        mean = rms_norm(x)
        if generator is None or not self.noise:
            return Posterior(mean, mean)
        strength = self.noise * randn((len(x), 1, 1, 1), generator)
        noise = strength * randn(mean.shape, generator)
        return Posterior(mean + on_device(noise, mean.device), mean)


class Gaussian(Bottleneck):
    """A diagonal normal distribution per latent (KL-VAE).

    The first C channels of its input are the mean, the last C the log-variance, clamped to
    [-30, 20] (latent diffusion's KL autoencoder, as in LightningDiT's VA-VAE).
    """

    def __init__(self, config: GaussianConfig | DiagonalGaussianConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.channels = config.latent_channels(width)
        self.in_channels = 2 * self.channels

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, C, h, w) of x (B, 2C, h, w): sampled; without a generator, the mean."""
        mean, logvar = x.float().chunk(2, dim=1)  # each (B, C, h, w)
        logvar = logvar.clamp(-30.0, 20.0)
        if generator is None:
            return Posterior(mean, mean, logvar)
        noise = randn(mean.shape, generator)
        latents = mean + (0.5 * logvar).exp() * on_device(noise, mean.device)
        return Posterior(latents, mean, logvar)


class DiagonalGaussian(Gaussian):
    """The same of the tokens themselves, without a projector."""

    projected = False


class Identity(Bottleneck):
    """The tokens themselves, standardized (RAE, arXiv 2510.11690).

    z = (x - mean) / sqrt(var + 1e-5), with a mean and a biased variance per channel and position,
    measured on training images or read from a file; 0 and 1 before. RAE's code keeps running
    averages over batches; ours are exact statistics of ``statistics_images`` images.
    """

    projected = False
    mean: Tensor
    var: Tensor

    def __init__(self, config: IdentityConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.in_channels = self.channels = width
        self.statistics_images = 0 if config.statistics else config.statistics_images
        self.config = config
        self.register_buffer("mean", torch.zeros(width, grid, grid))
        self.register_buffer("var", torch.ones(width, grid, grid))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, D, h, w) of x (B, D, h, w)."""
        return Posterior((x.float() - self.mean) * torch.rsqrt(self.var + STANDARD_EPS))

    def invert(self, latents: Tensor) -> Tensor:
        """x (B, D, h, w) of latents (B, D, h, w)."""
        return latents * torch.sqrt(self.var + STANDARD_EPS) + self.mean

    @torch.no_grad()
    def load_pretrained(self) -> None:
        """Set the statistics to those of the file in ``config.statistics``, if there is one.

        Raises:
            DataError: the file is missing or damaged, or is of latents of another shape.
        """
        for path in self.config.files().values():
            mean, var = load_standardization(path)
            self._set(self.mean, mean, 0.0, path)
            self._set(self.var, var, 1 - STANDARD_EPS, path)

    def _set(self, buffer: Tensor, found: Tensor | None, default: float, path: Path) -> None:
        if found is None:
            buffer.fill_(default)
            return
        if found.shape != buffer.shape:
            raise DataError(
                f"{path}: statistics of latents {tuple(found.shape)}, but those of this "
                f"bottleneck are {tuple(buffer.shape)} (channels, height, width)"
            )
        buffer.copy_(found)

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Set the statistics to those of ``batches``, each (B, D, h, w), in a single pass.

        Raises:
            DataError: there is no image to measure.
        """
        count = 0
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        square = torch.zeros_like(mean)  # sum of squared deviations from the mean
        for batch in batches:
            batch = batch.double()
            more = len(batch)
            shift = batch.mean(dim=0) - mean  # (D, h, w)
            # Chan, Golub and LeVeque (1979): merging two sets' means and squared deviations.
            square += batch.var(dim=0, unbiased=False) * more
            square += shift.square() * (count * more / (count + more))
            mean += shift * (more / (count + more))
            count += more
        if not count:
            raise DataError("the identity bottleneck has no images to measure its statistics on")
        self.mean.copy_(mean)
        self.var.copy_(square / count)
