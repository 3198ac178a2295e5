"""Solvers of the flow dx/dt = v(x, t): the table :data:`SOLVERS` and its functions.

To add a solver, write its function and its row in :data:`SOLVERS` here, and add its name to the
list of its kind in :mod:`pae_framework.flow.flow_settings`.

Stochastic solvers integrate the equation with the same marginals as the flow: dx = (v + w s) dt +
sqrt(2 w) dB, with the score s = (t v - x) / (1 - t) of the linear path and any strength w(t) >= 0
(SiT, Ma et al. 2024). The score is computed from the velocity, so a step costs one network
evaluation; the samplers of SiT, LightningDiT and GAE evaluate the network a second time.

Shapes: x, v (B, C, h, w); times (steps + 1,) of :func:`pae_framework.flow.path.solver_times`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from pae_framework.errors import UsageError
from pae_framework.flow.flow_settings import Diffusion, SdeSettings, SolverName, SolverSettings
from pae_framework.flow.path import Velocity, solver_times

Noise = Callable[[], Tensor]
"""Returns the next standard normal of a batch, (B, C, h, w), on the CPU."""


def integrate(velocity: Velocity, x: Tensor, settings: SolverSettings, noise: Noise) -> Tensor:
    """Integrate noise x (B, C, h, w) to data by the settings' solver.

    Args:
        velocity: the field; times are float32 scalars on the CPU (dopri5: on the device of x).
        x: standard normal noise, float32 or better.
        settings: solver, steps, shift (a number: see ``for_latent``). The field applies guidance.
        noise: draws the next normal of every sample; only stochastic solvers call it.

    Raises:
        UsageError: dopri5 without torchdiffeq.
    """
    times = solver_times(settings)
    solve = SOLVERS[settings.solver]
    if settings.adaptive:
        return solve(velocity, x, times, settings)
    if not settings.stochastic:
        return solve(velocity, x, times)
    x = solve(velocity, x, times, noise, settings.sde.diffusion)
    return last_step(velocity, x, settings.sde)


def euler(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrate x (B, C, h, w) over ``times`` (steps + 1,) by Euler's rule, of order 1."""
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(x, t)
    return x


def heun(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrate by Heun's rule, of order 2: the mean of the velocities at both ends of a step.

    Unlike in Karras et al. 2022 the last step is not Euler's: our velocity is finite at t = 1.
    """
    for t, t_next in pairwise(times):
        dt = t_next - t
        v = velocity(x, t)
        v_next = velocity(x + dt * v, t_next)
        x = x + dt * (v + v_next) / 2
    return x


def adams_bashforth(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Integrate by the two-step Adams-Bashforth rule, of order 2 with one evaluation a step.

    Each step integrates the line through the last two velocities, for steps of any lengths. The
    first step is Euler's. A straight path stays exact. DPM-Solver++(2M), the usual multistep rule,
    works in log(t / (1 - t)), which is infinite at both ends; its first two steps and its last are
    therefore of order 1, which hurts when steps are few. In t the velocity is smooth at both ends.
    """
    previous: tuple[Tensor, Tensor] | None = None
    for t, t_next in pairwise(times):
        dt, v = t_next - t, velocity(x, t)
        if previous is None:
            x = x + dt * v
        else:
            dt_previous, v_previous = previous
            x = x + dt * (v + dt / (2 * dt_previous) * (v - v_previous))
        previous = dt, v
    return x


def drift(x: Tensor, t: Tensor, v: Tensor, diffusion: Diffusion) -> Tensor:
    """v + w s, with the 1 - t of w and s canceled, so that it is finite at t = 1.

    ``sbdm`` is 2 v - x / t; ``linear`` (1 + t) v - x.
    """
    return 2 * v - x / t if diffusion == "sbdm" else (1 + t) * v - x


def noise_strength(t: Tensor, diffusion: Diffusion) -> Tensor:
    """w(t): ``sbdm`` (1 - t) / t, infinite at 0; ``linear`` 1 - t."""
    return (1 - t) / t if diffusion == "sbdm" else 1 - t


def euler_maruyama(
    velocity: Velocity, x: Tensor, times: Tensor, noise: Noise, diffusion: Diffusion
) -> Tensor:
    """Integrate x (B, C, h, w) over ``times`` by Euler-Maruyama steps.

    With ``sbdm`` from a time near 0, as in GAE, the first step multiplies x by about -400 and the
    second undoes that: float32 is precise enough, bfloat16 is not.
    """
    for t, t_next in pairwise(times):
        dt = t_next - t
        spread = (2 * noise_strength(t, diffusion) * dt).sqrt()
        x = x + dt * drift(x, t, velocity(x, t), diffusion) + spread * noise().to(x)
    return x


def sde_heun(
    velocity: Velocity, x: Tensor, times: Tensor, noise: Noise, diffusion: Diffusion
) -> Tensor:
    """Integrate by SiT's stochastic Heun steps: noise first, then Heun's rule along the drift."""
    for t, t_next in pairwise(times):
        dt = t_next - t
        x = x + (2 * noise_strength(t, diffusion) * dt).sqrt() * noise().to(x)
        d = drift(x, t, velocity(x, t), diffusion)
        x_next = x + dt * d
        d_next = drift(x_next, t_next, velocity(x_next, t_next), diffusion)
        x = x + dt * (d + d_next) / 2
    return x


def last_step(velocity: Velocity, x: Tensor, sde: SdeSettings) -> Tensor:
    """The final step without noise, after the noisy steps (SiT, LightningDiT, GAE).

    It uses the time 1 - ``last_step_size`` even if a shift moved the last noisy point elsewhere (to
    0.990 in GAE's setting), as in the released code. Tweedie's formula x / t + (1 - t)^2 / t s is
    x + (1 - t) v on the linear path, which is the Euler step to t = 1.
    """
    if sde.last_step == "none":
        return x
    t = torch.tensor(sde.end, dtype=torch.float32)
    v = velocity(x, t)
    direction = drift(x, t, v, sde.diffusion) if sde.last_step == "mean" else v
    return x + sde.last_step_size * direction


def dopri5(velocity: Velocity, x: Tensor, times: Tensor, settings: SolverSettings) -> Tensor:
    """Integrate x (B, C, h, w) from the first of ``times`` to the last by Dormand-Prince 5(4).

    Step sizes, and so every sample, depend on the whole batch, whose errors are combined. A step
    ends where guidance switches on or off, because the error estimate hardly notices that jump. A
    step also ends at the last time, beyond which a network is not defined.

    Raises:
        UsageError: torchdiffeq is not installed.
    """
    if (missing := settings.missing()) is not None:
        raise UsageError(missing)
    from torchdiffeq import odeint

    ends = times[[0, -1]].to(x.device)
    path: Tensor = odeint(
        lambda t, x: velocity(x, t.clamp(ends[0], ends[1])),  # rounding may overshoot
        x,
        ends,
        rtol=settings.rtol,
        atol=settings.atol,
        method="dopri5",
        options={"step_t": ends[1:], "jump_t": _guidance_switches(settings, ends)},
    )
    return path[-1]


def _guidance_switches(settings: SolverSettings, ends: Tensor) -> Tensor:
    guidance = settings.guidance
    switches = guidance.interval if guidance.scale > 1 else ()
    inside = [t for t in switches if ends[0] < t < ends[1]]
    return torch.tensor(inside, dtype=ends.dtype, device=ends.device)


SOLVERS: dict[SolverName, Callable[..., Tensor]] = {
    "euler": euler,
    "heun": heun,
    "ab2": adams_bashforth,
    "euler_maruyama": euler_maruyama,
    "sde_heun": sde_heun,
    "dopri5": dopri5,
}
"""Name in a recipe -> function. All take (velocity, x, times); stochastic solvers also (noise,
diffusion), adaptive ones also the settings."""
