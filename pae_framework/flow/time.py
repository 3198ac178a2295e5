"""Times: drawn for training, laid out for sampling, both moved by the same shift."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pae_framework.flow.flow_settings import SolverSettings, TimeSettings


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Move times by t' = s t / (1 + (s - 1) t), which keeps 0 and 1 in place.

    s < 1 moves towards noise (t = 0): 0.5 becomes 0.2308 for s = 0.3. In the notation of Stable
    Diffusion 3, whose time runs the other way, this is a shift of 1 / s.
    """
    return t if shift == 1 else shift * t / (1 + (shift - 1) * t)


def sample_times(settings: TimeSettings, n: int, generator: torch.Generator) -> Tensor:
    """Draw training times (n,), float32 in [0, 1], on the generator's device.

    ``logit_normal`` is the sigmoid of a normal of the settings' mean and std (Stable Diffusion 3,
    LightningDiT), cut below ``lowest`` (RAE). The shift comes after the draw, as in GAE and RAE.
    """
    assert settings.shift_base is None, "the shift is not a number yet: see for_latent"
    return shift_times(_unshifted(settings, n, generator), settings.shift)


def _unshifted(settings: TimeSettings, n: int, generator: torch.Generator) -> Tensor:
    device, lowest = generator.device, settings.lowest
    if settings.distribution == "uniform":
        return lowest + (1 - lowest) * torch.rand(n, generator=generator, device=device)
    if lowest == 0:
        normal = torch.randn(n, generator=generator, device=device)
        return torch.sigmoid(settings.mean + settings.std * normal)
    # The quantile of a uniform share above that of `lowest`: no draw is thrown away.
    cut = (math.log(lowest / (1 - lowest)) - settings.mean) / settings.std
    below = 0.5 * math.erfc(-cut / math.sqrt(2))
    share = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
    normal = torch.special.ndtri(below + (1 - below) * share)
    return torch.sigmoid(settings.mean + settings.std * normal).float()


def time_grid(steps: int, shift: float = 1.0, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Times (steps + 1,) float32 that bound ``steps`` solver steps: an even grid, then shifted.

    Without ``start`` and ``end`` they go from exactly 0 to exactly 1. LightningDiT counts grid
    points where this counts steps: its 250 is 249 here. RAE's grid of n points is ``steps`` n - 1
    and ``end`` 0.999: in our time it starts at noise and stops short of the data.
    """
    return shift_times(torch.linspace(start, end, steps + 1, dtype=torch.float64), shift).float()


def solver_times(settings: SolverSettings) -> Tensor:
    """Times between which the solver of the settings takes its steps.

    Stochastic solvers start a little after 0 and keep the last of their steps for
    :func:`pae_framework.flow.stochastic.last_step`, which these times leave out: GAE's 250 steps
    are 250 points here, 249 noisy steps, and that one.
    """
    assert settings.shift_base is None, "the shift is not a number yet: see for_latent"
    if not settings.stochastic:
        return time_grid(settings.steps, settings.shift, end=settings.end)
    sde = settings.sde
    noisy = settings.steps if sde.last_step == "none" else settings.steps - 1
    return time_grid(noisy, settings.shift, sde.start, sde.end)
