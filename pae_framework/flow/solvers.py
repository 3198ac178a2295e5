"""Solvers of dx/dt = v(x, t) on a fixed grid of times: pure functions."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from pae_framework.flow.path import Velocity


def euler(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrate x (B, C, h, w) over ``times`` (steps + 1,) by Euler's rule, of order 1."""
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(x, t)
    return x


def heun(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrate by Heun's rule, of order 2: the mean of the velocities at both ends of a step.

    Unlike Karras et al. 2022 the last step is no Euler step: our velocity is finite at t = 1.
    """
    for t, t_next in pairwise(times):
        dt = t_next - t
        here = velocity(x, t)
        there = velocity(x + dt * here, t_next)
        x = x + dt * (here + there) / 2
    return x


def adams_bashforth(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrate by the two-step Adams-Bashforth rule, of order 2 with one evaluation a step.

    Each step integrates the line through the last two velocities, whatever the steps' lengths; the
    first is Euler's. A straight path stays exact. DPM-Solver++(2M), the usual multistep rule, works
    in log(t / (1 - t)), which is infinite at both ends, so that of its steps the first two and the
    last are of order 1: much, where there are few. The velocity is smooth up to both ends of t.
    """
    before: tuple[Tensor, Tensor] | None = None
    for t, t_next in pairwise(times):
        dt, v = t_next - t, velocity(x, t)
        if before is None:
            x = x + dt * v
        else:
            dt_before, v_before = before
            x = x + dt * (v + dt / (2 * dt_before) * (v - v_before))
        before = dt, v
    return x
