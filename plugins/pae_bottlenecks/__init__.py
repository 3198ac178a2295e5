"""Built-in bottlenecks: sphere (PAE), two gaussian ones (KL-VAE), identity (RAE)."""

from __future__ import annotations

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_bottlenecks(register: Register) -> None:
    """Register the built-in bottlenecks."""
    register(
        "sphere",
        target="pae_bottlenecks.bottlenecks:Sphere",
        config="pae_bottlenecks.config:SphereConfig",
        summary="few channels, every token on a sphere of radius sqrt(d) (PAE, GAE)",
    )
    register(
        "gaussian",
        target="pae_bottlenecks.bottlenecks:Gaussian",
        config="pae_bottlenecks.config:GaussianConfig",
        summary="few channels with a learned variance, sampled in training (KL-VAE)",
    )
    register(
        "diagonal_gaussian",
        target="pae_bottlenecks.bottlenecks:DiagonalGaussian",
        config="pae_bottlenecks.config:DiagonalGaussianConfig",
        summary="the tokens are the mean and variance of the latents (latent diffusion, VA-VAE)",
    )
    register(
        "identity",
        target="pae_bottlenecks.bottlenecks:Identity",
        config="pae_bottlenecks.config:IdentityConfig",
        summary="the tokens themselves, standardized by data statistics (RAE)",
    )
