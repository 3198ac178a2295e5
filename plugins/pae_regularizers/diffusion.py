"""Auxiliary diffusion loss: latents whose velocities a small network learns easily.

Legend: B batch, N tokens, C latent channels, h = w grid side, D width of the network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.flow.flow_settings import TimeSettings
from pae_framework.flow.path import interpolate, path_velocity, sample_times
from pae_framework.layers import Block, map_to_tokens, sincos_positions, tokens_to_map
from pae_framework.seeding import on_device, randn
from pae_regularizers.config import DiffusionConfig

FREQUENCIES = 64


class Diffusion(Regularizer):
    """Mean of ``(v(x_t, t) - (z - x_0))^2`` over all entries, with ``x_t = t z + (1 - t) x_0``.

    x_0 is normal noise, t the sigmoid of a normal number, and v a network without labels that is
    trained by the same loss, with the optimizer of the tokenizer. Gradients reach the latents z
    through x_t and through the target velocity. The term alone is smallest for constant latents;
    the reconstruction prevents this collapse. The noise has unit variance, as the latents of the
    bottleneck ``sphere`` have; others are not normalized.

    PAE (arXiv 2605.07915) compares with an auxiliary diffusion loss without details: all of this
    is ours.
    """

    network: VelocityNetwork

    def __init__(self, config: DiffusionConfig):
        super().__init__(config)
        self.config = config

    def prepare(self, latent: LatentShape, width: int, target_channels: int | None) -> None:
        """Build the network for the latents' shape."""
        self.network = VelocityNetwork(latent, self.config)

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term."""
        latents = inputs.posterior.latents.float()  # (B, C, h, w)
        noise = on_device(randn(latents.shape, inputs.generator), latents.device)
        times = sample_times(TimeSettings(), len(latents), inputs.generator)
        t = on_device(times, latents.device)  # (B,)
        velocity = self.network(interpolate(noise, latents, t), t)  # (B, C, h, w)
        return F.mse_loss(velocity.float(), path_velocity(noise, latents))


class VelocityNetwork(nn.Module):
    """A transformer over latent tokens, to which positions and an embedding of the time are added.

    Its first output is 0.
    """

    positions: Tensor

    def __init__(self, latent: LatentShape, config: DiffusionConfig):
        super().__init__()
        width = config.width
        self.embed = nn.Linear(latent.channels, width)
        positions = sincos_positions(latent.side, width)  # (1, N, D)
        self.register_buffer("positions", positions, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, latent.channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocities (B, C, h, w) at x (B, C, h, w) and times t (B,)."""
        time = self.time(time_features(t))[:, None]  # (B, 1, D)
        tokens = self.embed(map_to_tokens(x)) + self.positions + time  # (B, N, D)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens_to_map(self.head(self.norm(tokens)))


def time_features(t: Tensor) -> Tensor:
    """Cosines and sines (B, 2 F) of times t (B,) in [0, 1], with F frequencies from 1000 to 0.1."""
    exponents = torch.arange(FREQUENCIES, device=t.device) / (FREQUENCIES - 1)
    angles = t[:, None] * 1000.0 * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
