"""Solvers by their settings: what they cost, dopri5, and settings that make no sense."""

import sys

import pytest
import torch
from pydantic import ValidationError

from pae_framework.errors import UsageError
from pae_framework.flow.flow_settings import Guidance, SampleSettings, SdeSettings, SolverSettings
from pae_framework.flow.sampling import planned_evaluations
from pae_framework.flow.solvers import integrate

START = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)


def no_noise():
    return torch.zeros_like(START)


def refused():
    pytest.fail("a deterministic solver asked for noise")


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [
        ({"solver": "euler"}, 250),
        ({"solver": "ab2"}, 250),
        ({"solver": "heun"}, 500),
        ({"solver": "euler_maruyama"}, 250),
        ({"solver": "euler_maruyama", "sde": SdeSettings(last_step="none")}, 250),
        ({"solver": "sde_heun"}, 499),  # 249 noisy steps of two, and the last one
    ],
)
def test_evaluations_of_250_steps(settings, evaluations):
    settings = SolverSettings(steps=250, **settings)
    times = []

    def velocity(x, t):
        times.append(t)
        return x

    integrate(velocity, START, settings, no_noise)
    planned = planned_evaluations(settings)
    assert planned is not None
    assert len(times) == planned.total == evaluations
    assert planned.guided == 0


@pytest.mark.parametrize(
    ("solver", "guided"),
    # Times 0, 1/4, 1/2, 3/4, and Heun's ends 1/4, 1/2, 3/4, 1: inside [1/4, 3/4] are 3, and 3 more.
    [("euler", 3), ("ab2", 3), ("heun", 6)],
)
def test_guided_evaluations_are_those_inside_the_interval(solver, guided):
    guidance = Guidance(scale=2, interval=(0.25, 0.75))
    planned = planned_evaluations(SolverSettings(solver=solver, steps=4, guidance=guidance))
    assert planned is not None
    assert planned.guided == guided


def test_the_published_guided_sampler_by_hand():
    """249 Euler steps, shift 0.4, on from t = 0.25: 0.4 u / (1 - 0.6 u) >= 0.25 from u = 0.4546.

    249 u = 113.2, so points 114 to 248 are guided: 135.
    """
    guidance = Guidance(scale=2.5, interval=(0.25, 1.0))
    planned = planned_evaluations(SolverSettings(steps=249, shift=0.4, guidance=guidance))
    assert planned is not None
    assert (planned.total, planned.guided) == (249, 135)


@pytest.mark.parametrize("solver", ["euler", "heun", "ab2", "dopri5"])
def test_deterministic_solvers_ask_for_no_noise(solver):
    integrate(lambda x, t: x, START, SolverSettings(solver=solver), refused)


# --- dopri5 --------------------------------------------------------------------------------------


def wave(x, t):
    return x * torch.cos(t)


def test_dopri5_is_as_near_as_its_tolerances_ask():
    expected = START * torch.tensor(1.0).sin().exp()
    tight = integrate(wave, START, SolverSettings(solver="dopri5", rtol=1e-6), refused)
    torch.testing.assert_close(tight, expected, rtol=1e-5, atol=1e-5)


def test_dopri5_stops_at_the_end_it_is_given():
    half = integrate(wave, START, SolverSettings(solver="dopri5", end=0.5), refused)
    torch.testing.assert_close(half, START * torch.tensor(0.5).sin().exp(), rtol=1e-3, atol=1e-3)


def test_dopri5_sees_guidance_go_on_and_off():
    """Velocity 1, and 3 in [0.3, 0.7]: 0.6 + 3 * 0.4 = 1.8 from start to end."""

    def jumping(x, t):
        return (3 if 0.3 <= t <= 0.7 else 1) * torch.ones_like(x)

    guidance = Guidance(scale=2, interval=(0.3, 0.7))
    settings = SolverSettings(solver="dopri5", guidance=guidance)
    end = integrate(jumping, START, settings, refused)
    torch.testing.assert_close(end, START + 1.8, rtol=0, atol=1e-5)


@pytest.mark.parametrize("end", [0.9, 1.0])
def test_dopri5_asks_for_no_time_outside_its_ends(end):
    times = []

    def velocity(x, t):
        times.append(t)
        return x * torch.cos(9 * t)

    integrate(velocity, START, SolverSettings(solver="dopri5", end=end), refused)
    assert min(times) == 0
    assert end - 1e-6 < max(times) <= torch.tensor(end)


def test_nobody_knows_beforehand_what_dopri5_costs():
    assert planned_evaluations(SolverSettings(solver="dopri5")) is None


def test_without_torchdiffeq_dopri5_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    monkeypatch.setattr("pae_framework.flow.flow_settings.find_spec", lambda name: None)
    settings = SolverSettings(solver="dopri5")
    assert "pae-framework[ode]" in (settings.missing() or "")
    assert SolverSettings(solver="euler").missing() is None
    with pytest.raises(UsageError, match=r"pip install 'pae-framework\[ode\]'"):
        integrate(wave, START, settings, refused)


# --- settings that make no sense -----------------------------------------------------------------


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.7, 0.3), (-0.1, 1), (0, 1.5)])
def test_an_interval_that_is_empty_or_leaves_the_unit_interval_is_refused(interval):
    low, high = interval
    with pytest.raises(ValidationError, match=rf"interval.*\[{low:g}, {high:g}\]"):
        Guidance(scale=2, interval=interval)


@pytest.mark.parametrize("steps", [{"steps": 1}, {"steps": 10, "few_steps": (1, 5)}])
def test_a_stochastic_solver_has_noisy_steps_and_a_last_one(steps):
    with pytest.raises(ValidationError, match="2 steps"):
        SampleSettings(solver="euler_maruyama", **steps)
    assert SampleSettings(solver="euler", **steps)
    assert SampleSettings(solver="euler_maruyama", sde=SdeSettings(last_step="none"), **steps)


def test_step_counts_mean_nothing_to_dopri5():
    with pytest.raises(ValidationError, match="few_steps"):
        SampleSettings(solver="dopri5", few_steps=(5,))


def test_the_noisy_steps_have_room():
    with pytest.raises(ValidationError, match=r"`start` 0\.5.* 0\.4"):
        SdeSettings(start=0.5, last_step_size=0.6)
