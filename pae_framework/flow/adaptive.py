"""The adaptive solver dopri5, by torchdiffeq: the extra ``pae-framework[ode]``."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.errors import UsageError
from pae_framework.flow.flow_settings import SolverSettings
from pae_framework.flow.path import Velocity


def dopri5(velocity: Velocity, x: Tensor, times: Tensor, settings: SolverSettings) -> Tensor:
    """Integrate x (B, C, h, w) from the first of ``times`` to the last by Dormand-Prince 5(4).

    The steps, and so each sample, depend on all of x, whose errors are taken together. Steps end
    where guidance goes on or off: its jump is hardly seen by the estimate of a step's error, where
    the velocity is smooth on both sides. They end at the last time too, beyond which a network
    knows nothing.

    Raises:
        UsageError: torchdiffeq is not installed.
    """
    if (missing := settings.missing()) is not None:
        raise UsageError(missing)
    from torchdiffeq import odeint

    ends = times[[0, -1]].to(x.device)
    path: Tensor = odeint(
        lambda t, x: velocity(x, t.clamp(ends[0], ends[1])),  # sums of steps are rounded
        x,
        ends,
        rtol=settings.rtol,
        atol=settings.atol,
        method="dopri5",
        options={"step_t": ends[1:], "jump_t": _jumps(settings, ends)},
    )
    return path[-1]


def _jumps(settings: SolverSettings, ends: Tensor) -> Tensor:
    """Times between the ends at which guidance goes on or off."""
    guidance = settings.guidance
    jumps = guidance.interval if guidance.scale > 1 else ()
    inside = [t for t in jumps if ends[0] < t < ends[1]]
    return torch.tensor(inside, dtype=ends.dtype, device=ends.device)
