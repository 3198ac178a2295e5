"""What is written for the reversed time of RAE, in ours.

RAE's time runs from 0 at data to 1 at noise and its velocity is noise - data (RAE, Zheng et al.
2025, and its published code); ours is stated in :mod:`pae_framework.flow.path`. A network of that
convention is wrapped where it is loaded; these are the conversions it and its settings need.
"""

from __future__ import annotations

from torch import Tensor

from pae_framework.flow.path import Velocity


def reversed_velocity(velocity: Velocity) -> Velocity:
    """The field v(x, t) = -v'(x, 1 - t) of a field v' with the other convention; an involution."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        return -velocity(x, 1 - t)

    return field


def reversed_shift(shift: float) -> float:
    """The shift that does to t what ``shift`` does to 1 - t: its inverse.

    RAE's a = sqrt(m / 4096) for latents of m values is sqrt(4096 / m) here: ``shift_base: 4096``.
    """
    return 1 / shift


def reversed_interval(interval: tuple[float, float]) -> tuple[float, float]:
    """An interval [t_min, t_max] of times, as in RAE's guidance, seen from the other end."""
    low, high = interval
    return 1 - high, 1 - low
