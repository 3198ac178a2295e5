"""The path from noise to data and its time convention, defined here for the whole project.

**t = 0 is noise, t = 1 is data**: x_t = t x_1 + (1 - t) x_0 with x_0 ~ N(0, I), and the velocity a
generator learns is x_1 - x_0 (LightningDiT, GAE, PAE). RAE uses the reverse: t = 0 is data, and the
velocity is noise - data (Zheng et al. 2025 and its released code). :func:`reversed_velocity` wraps
networks of that convention.

Shapes: B samples, latents (B, C, h, w).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pae_framework.flow.flow_settings import SolverSettings, TimeSettings
from pae_framework.seeding import rand, randn

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A velocity field: (B, C, h, w) at x (B, C, h, w) and one time t for all, a scalar tensor."""


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Point of the path at time t.

    Args:
        x0: noise (B, C, h, w).
        x1: data (B, C, h, w).
        t: times (B,) in [0, 1].
    """
    t = t.view(-1, 1, 1, 1)  # (B, 1, 1, 1)
    return t * x1 + (1 - t) * x0


def path_velocity(x0: Tensor, x1: Tensor) -> Tensor:
    """Velocity dx_t/dt of the path from noise x0 to data x1, constant in t; same shape."""
    return x1 - x0


def reversed_velocity(velocity: Velocity) -> Velocity:
    """Convert a field v' of RAE's time convention to ours, or back: v(x, t) = -v'(x, 1 - t)."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        return -velocity(x, 1 - t)

    return field


def reversed_shift(shift: float) -> float:
    """The shift of t that equals the shift ``shift`` of 1 - t: its inverse.

    RAE's a = sqrt(m / 4096) for latents of m values is sqrt(4096 / m) here: ``shift_base: 4096``.
    """
    return 1 / shift


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Shift times by t' = s t / (1 + (s - 1) t), which leaves 0 and 1 unchanged.

    s < 1 moves towards noise (t = 0): 0.5 becomes 0.2308 for s = 0.3. In the notation of Stable
    Diffusion 3, whose time runs the other way, this is a shift of 1 / s.
    """
    return t if shift == 1 else shift * t / (1 + (shift - 1) * t)


def sample_times(settings: TimeSettings, n: int, generator: torch.Generator) -> Tensor:
    """Draw training times (n,), float32 in [0, 1], on the generator's device.

    ``logit_normal`` is the sigmoid of a normal of the settings' mean and std (Stable Diffusion 3,
    LightningDiT), cut below ``lowest`` (RAE). The shift comes after the draw, as in GAE and RAE.
    """
    assert settings.shift_base is None, "call for_latent first: the shift must be a number"
    return shift_times(_draw_unshifted(settings, n, generator), settings.shift)


def _draw_unshifted(settings: TimeSettings, n: int, generator: torch.Generator) -> Tensor:
    lowest = settings.lowest
    if settings.distribution == "uniform":
        return lowest + (1 - lowest) * rand((n,), generator)
    if lowest == 0:
        normal = randn((n,), generator)
        return torch.sigmoid(settings.mean + settings.std * normal)
    # Inverse transform of a uniform number above the quantile of `lowest`, without rejection.
    cut = (math.log(lowest / (1 - lowest)) - settings.mean) / settings.std
    below = 0.5 * math.erfc(-cut / math.sqrt(2))
    share = rand((n,), generator, dtype=torch.float64)
    normal = torch.special.ndtri(below + (1 - below) * share)
    return torch.sigmoid(settings.mean + settings.std * normal).float()


def time_grid(steps: int, shift: float = 1.0, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Times (steps + 1,) float32 that bound ``steps`` solver steps: an even grid, then shifted.

    By default they go from exactly 0 to exactly 1. LightningDiT counts grid points instead of
    steps: its 250 is 249 here. RAE's grid of n points is ``steps`` n - 1 and ``end`` 0.999: in our
    time it starts at noise and stops just before the data.
    """
    return shift_times(torch.linspace(start, end, steps + 1, dtype=torch.float64), shift).float()


def solver_times(settings: SolverSettings) -> Tensor:
    """Times that bound the steps of the settings' solver: (steps + 1,) float32.

    Stochastic solvers start slightly after 0. Their last step is
    :func:`pae_framework.flow.solvers.last_step`, which these times exclude: GAE's 250 steps are 250
    points here, which bound 249 noisy steps, and the last step.
    """
    assert settings.shift_base is None, "call for_latent first: the shift must be a number"
    if not settings.stochastic:
        return time_grid(settings.steps, settings.shift, end=settings.end)
    sde = settings.sde
    noisy = settings.steps if sde.last_step == "none" else settings.steps - 1
    return time_grid(noisy, settings.shift, sde.start, sde.end)
