"""Solvers: exactness, order of convergence, cost, agreement with torchdiffeq."""

import math

import pytest
import torch
import torchdiffeq

from pae_framework.flow.solvers import SOLVERS, euler, evaluations, heun
from pae_framework.flow.time import time_grid

START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).view(1, 3, 1, 1)


def decay(x, t):
    """dx/dt = -2 t x, so x(1) = x(0) e^-1."""
    return -2 * t * x


def error(solver, steps):
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    end = SOLVERS[solver].integrate(decay, START, times)
    return (end - START * math.exp(-1)).abs().max().item()


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order):
    assert math.log2(error(solver, 200) / error(solver, 400)) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shift", [1.0, 0.3])
def test_a_straight_path_is_exact_in_any_number_of_steps(solver, shift):
    for steps in (1, 3, 10):
        end = SOLVERS[solver].integrate(lambda x, t: 2 * START, START, time_grid(steps, shift))
        torch.testing.assert_close(end, 3 * START, rtol=0, atol=1e-6)


def test_heun_is_exact_where_the_velocity_is_linear_in_time():
    end = heun(lambda x, t: 2 * t * torch.ones_like(x), START, time_grid(3, 0.5))
    torch.testing.assert_close(end, START + 1, rtol=0, atol=1e-6)


def test_one_step_of_each_by_hand():
    """x = 2, v = x + t, one step from 0 to 1: Euler 2 + 2 = 4; Heun 2 + (2 + (4 + 1)) / 2 = 5.5."""
    x, times = torch.full((1, 1, 1, 1), 2.0), time_grid(1)

    def velocity(x, t):
        return x + t

    assert euler(velocity, x, times).item() == 4
    assert heun(velocity, x, times).item() == 5.5


@pytest.mark.parametrize("shift", [1.0, 0.3])
def test_euler_is_torchdiffeqs_on_the_same_grid(shift):
    def velocity(x, t):
        return torch.sin(3 * x) - t * x

    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    times = time_grid(19, shift)
    theirs = torchdiffeq.odeint(lambda t, x: velocity(x, t), x, times, method="euler")[-1]
    torch.testing.assert_close(euler(velocity, x, times), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_evaluations_are_counted_as_they_happen(solver):
    calls = []

    def velocity(x, t):
        calls.append(t)
        return x

    SOLVERS[solver].integrate(velocity, START, time_grid(7))
    assert len(calls) == evaluations(solver, 7)


def test_evaluations_by_hand():
    assert evaluations("euler", 50) == 50
    assert evaluations("heun", 50) == 100
