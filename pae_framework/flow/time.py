"""Times: drawn for training, laid out for sampling, both moved by the same shift."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.settings import TimeSettings


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Move times by t' = s t / (1 + (s - 1) t), which keeps 0 and 1 in place.

    s < 1 moves towards noise (t = 0): 0.5 becomes 0.2308 for s = 0.3. In the notation of Stable
    Diffusion 3, whose time runs the other way, this is a shift of 1 / s.
    """
    return t if shift == 1 else shift * t / (1 + (shift - 1) * t)


def sample_times(settings: TimeSettings, n: int, generator: torch.Generator) -> Tensor:
    """Draw training times (n,), float32 in [0, 1], on the generator's device.

    ``logit_normal`` is the sigmoid of a normal of the settings' mean and std (Stable Diffusion 3,
    LightningDiT). The shift comes after the draw, as in GAE.
    """
    device = generator.device
    if settings.distribution == "uniform":
        t = torch.rand(n, generator=generator, device=device)
    else:
        normal = torch.randn(n, generator=generator, device=device)
        t = torch.sigmoid(settings.mean + settings.std * normal)
    return shift_times(t, settings.shift)


def time_grid(steps: int, shift: float = 1.0) -> Tensor:
    """Times (steps + 1,) float32 from exactly 0 to exactly 1 that bound ``steps`` solver steps.

    LightningDiT counts grid points where this counts steps: its 250 is 249 here.
    """
    return shift_times(torch.linspace(0, 1, steps + 1, dtype=torch.float64), shift).float()
