"""Solvers of the stochastic equation with the same marginals as the flow: pure functions.

dx = (v + w s) dt + sqrt(2 w) dB with the score s = (t v - x) / (1 - t) of the linear path and any
strength w(t) >= 0 (SiT, Ma et al. 2024). The score comes from the velocity, so that a step costs
one network evaluation; the samplers of SiT, LightningDiT and GAE ask the network a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from pae_framework.flow.flow_settings import SdeSettings
from pae_framework.flow.path import Velocity

Noise = Callable[[], Tensor]
"""The next standard normal of a batch, (B, C, h, w), on the CPU."""

Diffusion = Literal["sbdm", "linear"]


def drift(x: Tensor, t: Tensor, v: Tensor, diffusion: Diffusion) -> Tensor:
    """v + w s with the 1 - t of w cancelled against that of s, so that it is finite at t = 1.

    ``sbdm`` is 2 v - x / t; ``linear`` (1 + t) v - x.
    """
    return 2 * v - x / t if diffusion == "sbdm" else (1 + t) * v - x


def strength(t: Tensor, diffusion: Diffusion) -> Tensor:
    """w(t): ``sbdm`` (1 - t) / t, infinite at 0; ``linear`` 1 - t."""
    return (1 - t) / t if diffusion == "sbdm" else 1 - t


def euler_maruyama(
    velocity: Velocity, x: Tensor, times: Tensor, noise: Noise, diffusion: Diffusion
) -> Tensor:
    """Integrate x (B, C, h, w) over ``times`` by Euler-Maruyama steps.

    With ``sbdm`` from a time near 0, as GAE does, the first step multiplies x by some -400 and the
    second takes that back: float32 bears it, bfloat16 would not.
    """
    for t, t_next in pairwise(times):
        dt = t_next - t
        spread = (2 * strength(t, diffusion) * dt).sqrt()
        x = x + dt * drift(x, t, velocity(x, t), diffusion) + spread * noise().to(x)
    return x


def sde_heun(
    velocity: Velocity, x: Tensor, times: Tensor, noise: Noise, diffusion: Diffusion
) -> Tensor:
    """Integrate by SiT's stochastic Heun steps: noise first, then Heun's rule along the drift."""
    for t, t_next in pairwise(times):
        dt = t_next - t
        x = x + (2 * strength(t, diffusion) * dt).sqrt() * noise().to(x)
        here = drift(x, t, velocity(x, t), diffusion)
        ahead = x + dt * here
        there = drift(ahead, t_next, velocity(ahead, t_next), diffusion)
        x = x + dt * (here + there) / 2
    return x


def last_step(velocity: Velocity, x: Tensor, sde: SdeSettings) -> Tensor:
    """The step without noise that follows the noisy ones (SiT, LightningDiT, GAE).

    It is taken as at the time 1 - ``last_step_size`` even where a shift has moved the last noisy
    point elsewhere (to 0.990 in GAE's setting), as released. Tweedie's formula x / t +
    (1 - t)^2 / t s is x + (1 - t) v on the linear path, which is the Euler step to t = 1.
    """
    if sde.last_step == "none":
        return x
    t = torch.tensor(sde.end, dtype=torch.float32)
    v = velocity(x, t)
    along = drift(x, t, v, sde.diffusion) if sde.last_step == "mean" else v
    return x + sde.last_step_size * along
