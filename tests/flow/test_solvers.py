"""Solvers of the flow: exactness, order of convergence, agreement with torchdiffeq."""

import math
from typing import get_args

import pytest
import torch
import torchdiffeq

from pae_framework.flow.flow_settings import FixedSolver, SolverName
from pae_framework.flow.path import time_grid
from pae_framework.flow.solvers import SOLVERS, adams_bashforth, euler, heun

START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).view(1, 3, 1, 1)


def wave(x, t):
    """dx/dt = x cos t, so x(1) = x(0) e^(sin 1)."""
    return x * torch.cos(t)


MEAN, DEVIATION = 1.5, 0.25


def gaussian(x, t):
    """The exact flow to N(MEAN, DEVIATION^2): x_t ~ N(t m, s_t^2), s_t^2 = t^2 d^2 + (1 - t)^2."""
    spread = t**2 * DEVIATION**2 + (1 - t) ** 2
    return MEAN + (t * DEVIATION**2 - (1 - t)) / spread * (x - t * MEAN)


FIELDS = {
    "wave": (wave, START * math.exp(math.sin(1))),
    # A normal field keeps each sample at the same number of deviations from the mean.
    "gaussian": (gaussian, MEAN + DEVIATION * START),
}


def error(solver, field, steps, shift):
    velocity, end = FIELDS[field]
    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = shift * grid / (1 + (shift - 1) * grid)
    return (SOLVERS[solver](velocity, START, times) - end).abs().max().item()


def test_the_table_has_every_solver_that_a_recipe_may_name():
    assert list(SOLVERS) == list(get_args(SolverName))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("ab2", 2)])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("shift", [1.0, 0.4])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order, field, shift):
    ratio = error(solver, field, 400, shift) / error(solver, field, 800, shift)
    assert math.log2(ratio) == pytest.approx(order, abs=0.06)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("evaluations", [10, 20])
def test_ab2_is_more_accurate_than_euler_with_as_many_evaluations(field, evaluations):
    assert error("ab2", field, evaluations, 1.0) < 0.5 * error("euler", field, evaluations, 1.0)


@pytest.mark.parametrize("solver", get_args(FixedSolver))
@pytest.mark.parametrize("shift", [1.0, 0.3])
def test_a_straight_path_is_exact_with_any_number_of_steps(solver, shift):
    for steps in (1, 3, 10):
        end = SOLVERS[solver](lambda x, t: 2 * START, START, time_grid(steps, shift))
        torch.testing.assert_close(end, 3 * START, rtol=0, atol=1e-6)


def test_heun_is_exact_if_the_velocity_is_linear_in_time():
    end = heun(lambda x, t: 2 * t * torch.ones_like(x), START, time_grid(3, 0.5))
    torch.testing.assert_close(end, START + 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 0.5])
def test_ab2_errs_only_in_its_first_step_if_the_velocity_is_linear_in_time(shift):
    """v = 2 t from 0: Euler's first step to t_1 stays at 0 and misses t_1^2; the rest is exact."""
    times = time_grid(6, shift)
    end = adams_bashforth(lambda x, t: 2 * t * torch.ones_like(x), START, times)
    torch.testing.assert_close(end, START + 1 - times[1] ** 2, rtol=0, atol=1e-6)


def test_steps_of_each_solver_by_hand():
    """x = 2, v = x + t.

    One step from 0 to 1: Euler 2 + 2 = 4; Heun 2 + (2 + (4 + 1)) / 2 = 5.5. Two steps of 1/2 by
    Adams-Bashforth: 2 + 1 = 3, v = 3.5, then 3 + (3 * 3.5 - 2) / 4 = 5.125.
    """
    x = torch.full((1, 1, 1, 1), 2.0)

    def velocity(x, t):
        return x + t

    assert euler(velocity, x, time_grid(1)).item() == 4
    assert heun(velocity, x, time_grid(1)).item() == 5.5
    assert adams_bashforth(velocity, x, time_grid(2)).item() == 5.125


@pytest.mark.parametrize("shift", [1.0, 0.3])
def test_euler_equals_torchdiffeqs_on_the_same_grid(shift):
    def velocity(x, t):
        return torch.sin(3 * x) - t * x

    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    times = time_grid(19, shift)
    theirs = torchdiffeq.odeint(lambda t, x: velocity(x, t), x, times, method="euler")[-1]
    torch.testing.assert_close(euler(velocity, x, times), theirs, rtol=0, atol=1e-6)
