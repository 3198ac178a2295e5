"""Solvers of dx/dt = v(x, t) on a fixed grid of times: pure functions, and a table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Solver:
    """A solver and what it costs."""

    integrate: Callable[[Velocity, Tensor, Tensor], Tensor]
    evaluations_per_step: int


SOLVERS = {"euler": Solver(euler, 1), "heun": Solver(heun, 2)}


def evaluations(solver: str, steps: int) -> int:
    """Velocity evaluations of one integration; with guidance on, each passes a doubled batch."""
    return SOLVERS[solver].evaluations_per_step * steps
