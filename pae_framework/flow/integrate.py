"""From noise to data as settings say: the choice of a solver, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pae_framework.flow.adaptive import dopri5
from pae_framework.flow.flow_settings import SolverSettings
from pae_framework.flow.guidance import GuidedVelocity
from pae_framework.flow.path import Velocity
from pae_framework.flow.solvers import adams_bashforth, euler, heun
from pae_framework.flow.stochastic import Noise, euler_maruyama, last_step, sde_heun
from pae_framework.flow.time import solver_times

SOLVERS = {"euler": euler, "heun": heun, "ab2": adams_bashforth}
STOCHASTIC_SOLVERS = {"euler_maruyama": euler_maruyama, "sde_heun": sde_heun}


def integrate(velocity: Velocity, x: Tensor, settings: SolverSettings, noise: Noise) -> Tensor:
    """Carry noise x (B, C, h, w) to data.

    Args:
        velocity: the field; times are float32 scalars on the CPU (dopri5: on the device of x).
        x: standard normal noise, float32 or better.
        settings: solver, steps, shift (a number: see ``for_latent``); guidance is the field's.
        noise: the next normal of every sample, for stochastic solvers; others do not ask.

    Raises:
        UsageError: dopri5 without torchdiffeq.
    """
    times = solver_times(settings)
    if settings.adaptive:
        return dopri5(velocity, x, times, settings)
    if not settings.stochastic:
        return SOLVERS[settings.solver](velocity, x, times)
    solve = STOCHASTIC_SOLVERS[settings.solver]
    x = solve(velocity, x, times, noise, settings.sde.diffusion)
    return last_step(velocity, x, settings.sde)


@dataclass(frozen=True)
class Evaluations:
    """Velocity evaluations of one integration, and at how many of them guidance was on.

    A guided one is two network passes of a sample: with and without a label, or of two networks.
    """

    total: int
    guided: int


def planned_evaluations(settings: SolverSettings) -> Evaluations | None:
    """What an integration costs, known by carrying it out on a field of zeros.

    None for dopri5, whose steps depend on the field.
    """
    if settings.adaptive:
        return None

    def pair(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    nothing = torch.zeros(1, 1, 1, 1)
    guided = pair if settings.guidance.scale > 1 else None
    field = GuidedVelocity(lambda x, t: nothing, guided, settings.guidance)
    integrate(field, nothing, settings, lambda: nothing)
    return Evaluations(field.evaluations, field.guided_evaluations)
