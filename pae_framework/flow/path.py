"""The path from noise to data, stated once for the whole project.

**t = 0 is noise, t = 1 is data**: x_t = t x_1 + (1 - t) x_0 with x_0 ~ N(0, I), and the velocity a
generator learns is x_1 - x_0 (LightningDiT, GAE, PAE). RAE writes the reverse, t = 0 for data and
noise - data for the velocity: v(x, t) here is -v_RAE(x, 1 - t); :mod:`pae_framework.flow.reversed`
converts.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A velocity field: (B, C, h, w) at x (B, C, h, w) and one time t for all, a scalar tensor."""


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Point of the path at time t.

    Args:
        x0: noise (B, C, h, w).
        x1: data (B, C, h, w).
        t: times (B,) in [0, 1].
    """
    t = t.view(-1, 1, 1, 1)
    return t * x1 + (1 - t) * x0


def path_velocity(x0: Tensor, x1: Tensor) -> Tensor:
    """Velocity dx_t/dt of the path from noise x0 to data x1, constant in t; same shape."""
    return x1 - x0
