"""Stochastic solvers: steps by hand, last steps, and the moments of a known target."""

import math

import pytest
import torch

from pae_framework.flow.flow_settings import SdeSettings, SolverSettings
from pae_framework.flow.path import solver_times
from pae_framework.flow.solvers import (
    drift,
    euler_maruyama,
    integrate,
    last_step,
    noise_strength,
    sde_heun,
)

MEAN, DEVIATION = 1.5, 0.25
N = 40_000


def gaussian(x, t):
    """The exact velocity to N(MEAN, DEVIATION^2): x_t ~ N(t m, t^2 d^2 + (1 - t)^2)."""
    spread = t**2 * DEVIATION**2 + (1 - t) ** 2
    return MEAN + (t * DEVIATION**2 - (1 - t)) / spread * (x - t * MEAN)


def normals(seed):
    random = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(N, 1, 1, 1, generator=random)


def scalar(value):
    return torch.tensor(value).view(1, 1, 1, 1)


# --- the equation --------------------------------------------------------------------------------


@pytest.mark.parametrize("diffusion", ["sbdm", "linear"])
def test_the_drift_is_velocity_plus_strength_times_score(diffusion):
    """x = 0.6, v = 2, t = 0.5: score (1 - 0.6) / 0.5 = 0.8; w = 1 or 0.5; 2 + 0.8 w."""
    t = torch.tensor(0.5)
    found = drift(scalar(0.6), t, scalar(2.0), diffusion).item()
    assert noise_strength(t, diffusion).item() == (1.0 if diffusion == "sbdm" else 0.5)
    assert found == pytest.approx(2.8 if diffusion == "sbdm" else 2.4)


@pytest.mark.parametrize("diffusion", ["sbdm", "linear"])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_score_is_the_slope_of_the_log_density(diffusion, t):
    """Of N(t m, s^2) it is -(x - t m) / s^2, which (drift - v) / w must be."""
    t, x = torch.tensor(t, dtype=torch.float64), torch.tensor([0.2, 1.7], dtype=torch.float64)
    score = -(x - t * MEAN) / (t**2 * DEVIATION**2 + (1 - t) ** 2)
    v = gaussian(x, t)
    found = (drift(x, t, v, diffusion) - v) / noise_strength(t, diffusion)
    torch.testing.assert_close(found, score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("diffusion", ["sbdm", "linear"])
def test_the_drift_is_finite_at_the_data(diffusion):
    """At t = 1 it is 2 v - x for both strengths."""
    found = drift(scalar(0.6), torch.tensor(1.0), scalar(2.0), diffusion)
    assert found.item() == pytest.approx(3.4)


# --- steps by hand -------------------------------------------------------------------------------


def test_one_step_of_euler_maruyama_by_hand():
    """sbdm, t = 0.5 to 0.75, v = x = 1, noise 2: drift 2 - 2 = 0, spread sqrt(2 * 0.25)."""
    times = torch.tensor([0.5, 0.75])
    end = euler_maruyama(lambda x, t: x, scalar(1.0), times, lambda: scalar(2.0), "sbdm")
    assert end.item() == pytest.approx(1 + 2 * math.sqrt(0.5))


def test_one_step_of_heun_by_hand():
    """linear, t = 0.5 to 1, v = 1, noise 2 first: 0 + sqrt(2 * 0.5 * 0.5) 2 = sqrt 2.

    Drift (1 + t) v - x: 1.5 - r there; ahead r + 0.75 - r / 2 and the drift 1.25 - r / 2.
    """
    times, r = torch.tensor([0.5, 1.0]), math.sqrt(2)
    one = lambda x, t: torch.ones_like(x)  # noqa: E731
    end = sde_heun(one, scalar(0.0), times, lambda: scalar(2.0), "linear")
    assert end.item() == pytest.approx(r + 0.25 * ((1.5 - r) + (1.25 - r / 2)))


@pytest.mark.parametrize(
    ("rule", "moved"),
    # x = 3, v = 2, t = 0.75, size 0.25: sbdm drift 4 - 3 / 0.75 = 0; Tweedie's is x + (1 - t) v.
    [("mean", 0.0), ("tweedie", 0.5), ("euler", 0.5), ("none", 0.0)],
)
def test_last_steps_by_hand(rule, moved):
    seen = []

    def velocity(x, t):
        seen.append(t.item())
        return torch.full_like(x, 2.0)

    end = last_step(velocity, scalar(3.0), SdeSettings(last_step=rule, last_step_size=0.25))
    assert end.item() == pytest.approx(3 + moved)
    assert seen == ([] if rule == "none" else [0.75])


def test_tweedies_formula_is_the_mean_of_the_data_given_the_state():
    """x_t of N(m, d^2): E[x_1 | x_t] = m + t d^2 / s^2 (x_t - t m), in closed form."""
    t, x = 0.75, torch.tensor([0.4, 1.9]).view(2, 1, 1, 1)
    spread = t**2 * DEVIATION**2 + (1 - t) ** 2
    expected = MEAN + t * DEVIATION**2 / spread * (x - t * MEAN)
    found = last_step(gaussian, x, SdeSettings(last_step="tweedie", last_step_size=1 - t))
    torch.testing.assert_close(found, expected)


def test_first_steps_of_gaes_sampler():
    """The first multiplies x by 1 - dt / t = about -400, the second by about -0.002."""
    times = solver_times(SolverSettings(solver="euler_maruyama", steps=250, shift=0.4)).double()

    def still(x, t):
        return torch.zeros_like(x)

    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    once = euler_maruyama(still, x, times[:2], lambda: 0 * x, "sbdm")
    twice = euler_maruyama(still, x, times[:3], lambda: 0 * x, "sbdm")
    assert once.item() == pytest.approx(-400, rel=0.01)
    assert (twice / once).item() == pytest.approx(-0.002, rel=0.5)


def gaes_sampler(velocity, x, noise):
    """GAE's released sampler, written down from its description, with velocity and score apart."""
    u = torch.linspace(1e-5, 1 - 0.004, 250, dtype=torch.float64)
    t = 0.4 * u / (1 - 0.6 * u)

    def full_drift(x, t):
        w, v = (1 - t) / t, velocity(x, t)
        return v + w * (t * v - x) / (1 - t)

    for k in range(249):
        dt, w = t[k + 1] - t[k], (1 - t[k]) / t[k]
        x = x + full_drift(x, t[k]) * dt + torch.sqrt(2 * w * dt) * noise()
    return x + 0.004 * full_drift(x, torch.tensor(0.996, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaes_sampler_is_reproduced(dtype):
    """In float32 too, however far the first step throws x."""

    def velocity(x, t):
        return gaussian(x, t) + 0.3 * torch.sin(2 * x) * t

    ours, theirs = normals(3), normals(3)
    settings = SolverSettings(solver="euler_maruyama", steps=250, shift=0.4)
    end = integrate(velocity, ours().to(dtype), settings, ours)
    expected = gaes_sampler(velocity, theirs().double(), lambda: theirs().double())
    torch.testing.assert_close(end.double(), expected, rtol=0, atol=1e-3)


# --- a known target ------------------------------------------------------------------------------


CASES = [
    ("euler_maruyama", "sbdm", "mean", 0.4),
    ("euler_maruyama", "sbdm", "tweedie", 1.0),
    ("euler_maruyama", "sbdm", "none", 1.0),
    ("euler_maruyama", "linear", "euler", 1.0),
    ("sde_heun", "sbdm", "mean", 0.4),
    ("sde_heun", "linear", "none", 1.0),
]


@pytest.mark.parametrize(("solver", "diffusion", "rule", "shift"), CASES)
def test_samples_have_the_mean_and_variance_of_the_target(solver, diffusion, rule, shift):
    """250 steps leave a bias of a per cent or so; the standard error of 40 000 samples is less."""
    sde = SdeSettings(diffusion=diffusion, last_step=rule)
    settings = SolverSettings(solver=solver, steps=250, shift=shift, sde=sde)
    noise = normals(0)
    end = integrate(gaussian, noise(), settings, noise)
    assert end.dtype == torch.float32
    assert end.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert end.std().item() == pytest.approx(DEVIATION, rel=0.05)


def test_stochastic_steps_decorrelate_end_and_start():
    """The flow maps a start to its end; a strong SDE hardly correlates them."""
    noise = normals(1)
    start = noise()

    def correlation(solver):
        end = integrate(gaussian, start, SolverSettings(solver=solver, steps=100), noise)
        return torch.corrcoef(torch.stack([start.flatten(), end.flatten()]))[0, 1].item()

    assert correlation("euler") == pytest.approx(1, abs=1e-4)
    assert abs(correlation("euler_maruyama")) < 0.1
