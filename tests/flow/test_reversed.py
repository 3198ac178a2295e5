"""The other convention: time from data to noise, converted into ours."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pae_framework.flow.path import (
    interpolate,
    path_velocity,
    reversed_shift,
    reversed_velocity,
    shift_times,
    time_grid,
)
from pae_framework.flow.solvers import euler

SHAPE = (3, 2, 4, 4)


def raes_euler(velocity, x, points, a):
    """RAE's sampler: Euler down the shifted grid 1 - linspace(0, 0.999, points)."""
    t = 1 - torch.linspace(0, 0.999, points, dtype=torch.float64)
    t = (a * t / (1 + (a - 1) * t)).float()
    for here, there in pairwise(t):
        x = x + (there - here) * velocity(x, here)
    return x


def test_a_reversed_field_solves_the_same_flow():
    """Theirs: x_t = (1 - t) data + t noise, velocity noise - data; of one noise and one image."""
    noise, data = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).unbind()
    theirs = reversed_velocity(lambda x, t: noise - data)
    x = interpolate(noise, data, torch.full((3,), 0.3))
    torch.testing.assert_close(x, 0.3 * data + 0.7 * noise)
    torch.testing.assert_close(theirs(x, torch.tensor(0.3)), path_velocity(noise, data))


def test_a_reversed_field_is_evaluated_at_1_minus_t():
    asked = []

    def theirs(x, t):
        asked.append(t.item())
        return x

    reversed_velocity(theirs)(torch.zeros(SHAPE), torch.tensor(0.25))
    assert asked == [0.75]


@given(st.floats(0.05, 20), st.floats(0, 1))
def test_the_reversed_shift_is_the_shift_of_1_minus_t(shift, t):
    time = torch.tensor(t, dtype=torch.float64)
    there = 1 - shift_times(1 - time, shift)
    assert there.item() == pytest.approx(shift_times(time, reversed_shift(shift)).item(), abs=1e-9)


def test_the_solver_reproduces_samples_of_raes_convention():
    a = math.sqrt(768 * 16 * 16 / 4096)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))

    def velocity(x, t):
        return torch.sin(3 * x) - t * x

    theirs = raes_euler(velocity, noise, 50, a)
    times = time_grid(49, reversed_shift(a), end=0.999)
    ours = euler(reversed_velocity(velocity), noise, times)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
