"""Times in [0, 1]: draws for training, the shift, the grid of a solver."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.flow.time import sample_times, shift_times, time_grid
from pae_framework.seeding import generator
from pae_framework.settings import TimeSettings

N = 40_000
TOLERANCE = 4 * 0.5 / N**0.5  # four standard errors of a share


def draw(**settings):
    return sample_times(TimeSettings(**settings), N, generator(0, "test"))


def share_below(t, bound):
    return (t < bound).float().mean().item()


def test_times_are_float32_inside_the_unit_interval():
    t = draw()
    assert t.shape == (N,)
    assert t.dtype == torch.float32
    assert t.min() >= 0
    assert t.max() <= 1


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.8)])
@pytest.mark.parametrize(("deviations", "share"), [(-1, 0.158655), (0, 0.5), (1, 0.841345)])
def test_logit_normal_has_the_quantiles_of_its_normal(mean, std, deviations, share):
    """sigmoid is monotone, so t < sigmoid(mean + k std) as often as a normal is below k sigma."""
    bound = 1 / (1 + math.exp(-(mean + deviations * std)))
    t = draw(mean=mean, std=std)
    assert share_below(t, bound) == pytest.approx(share, abs=TOLERANCE)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_uniform_times_are_uniform(share):
    assert share_below(draw(distribution="uniform"), share) == pytest.approx(share, abs=TOLERANCE)


def test_training_shift_moves_the_drawn_times():
    assert torch.equal(draw(shift=0.7), shift_times(draw(), 0.7))


@pytest.mark.parametrize(("t", "shifted"), [(0.5, 0.15 / 0.65), (0.9, 0.27 / 0.37)])
def test_shift_by_hand(t, shifted):
    """s = 0.3: 0.3 * 0.5 / (1 - 0.7 * 0.5) = 0.2308; 0.3 * 0.9 / (1 - 0.7 * 0.9) = 0.7297."""
    assert shift_times(torch.tensor(t, dtype=torch.float64), 0.3).item() == pytest.approx(shifted)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 20), st.floats(0, 1))
def test_the_inverse_of_a_shift_is_the_shift_by_one_over_it(shift, t):
    there = shift_times(torch.tensor(t, dtype=torch.float64), shift)
    assert shift_times(there, 1 / shift).item() == pytest.approx(t, abs=1e-9)


def test_grid_without_shift_is_even():
    torch.testing.assert_close(time_grid(4), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.floats(0.05, 20))
def test_grid_rises_from_exactly_0_to_exactly_1(steps, shift):
    grid = time_grid(steps, shift)
    assert grid.shape == (steps + 1,)
    assert grid[0] == 0
    assert grid[-1] == 1
    assert (grid.diff() > 0).all()


def test_shift_below_one_puts_more_steps_near_noise():
    assert (time_grid(10, 0.3) < 0.5).sum() > (time_grid(10) < 0.5).sum()
