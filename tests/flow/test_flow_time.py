"""Times in [0, 1]: draws for training, the shift, the grid of a solver."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.config import LatentShape
from pae_framework.flow.flow_settings import SdeSettings, SolverSettings, TimeSettings
from pae_framework.flow.path import sample_times, shift_times, solver_times, time_grid
from pae_framework.seeding import generator

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


# --- draws that are cut off, as RAE's ------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["logit_normal", "uniform"])
def test_no_time_below_the_lowest_is_drawn(distribution):
    t = draw(distribution=distribution, lowest=0.3)
    assert t.dtype == torch.float32
    assert 0.3 <= t.min() < 0.301
    assert t.max() < 1


@pytest.mark.parametrize("bound", [0.4, 0.6, 0.9])
def test_a_cut_logit_normal_keeps_the_shape_of_what_is_left(bound):
    """P(t < b | t > a) = (F(b) - F(a)) / (1 - F(a)), F the normal's at its own mean and scale."""

    def cdf(t):
        z = (math.log(t / (1 - t)) - 0.2) / 0.8
        return 0.5 * (1 + math.erf(z / math.sqrt(2)))

    t = draw(mean=0.2, std=0.8, lowest=0.3)
    expected = (cdf(bound) - cdf(0.3)) / (1 - cdf(0.3))
    assert share_below(t, bound) == pytest.approx(expected, abs=TOLERANCE)


def test_a_cut_that_cuts_nothing_is_the_same_distribution():
    cut, whole = draw(lowest=1e-6).sort().values, draw().sort().values
    assert (cut - whole).abs().max() < 0.02


# --- the shift that depends on the size of the latents -------------------------------------------


@pytest.mark.parametrize(
    ("latent", "shift"),
    [
        (LatentShape(1, 64), 1.0),  # 4096 values: the base itself
        (LatentShape(768, 16), 1 / 6.9282),  # RAE at 256 px
        (LatentShape(768, 32), 1 / 13.8564),  # and at 512 px
        (LatentShape(32, 16), 0.70711),  # 8192 values: sqrt(1/2)
    ],
)
@pytest.mark.parametrize("settings", [TimeSettings, SolverSettings])
def test_the_shift_by_dimension_is_the_root_of_base_over_values(settings, latent, shift):
    resolved = settings(shift_base=4096).for_latent(latent)
    assert resolved.shift == pytest.approx(shift, rel=1e-5)
    assert resolved.shift_base is None


def test_a_shift_that_is_stated_does_not_depend_on_the_latents():
    settings = SolverSettings(shift=0.4)
    assert settings.for_latent(LatentShape(768, 16)) == settings


@pytest.mark.parametrize("settings", [TimeSettings, SolverSettings])
def test_the_shift_is_said_in_one_way(settings):
    with pytest.raises(ValueError, match=r"`shift`.*`shift_base`"):
        settings(shift=0.4, shift_base=4096)


# --- grids of the published samplers -------------------------------------------------------------


def test_raes_grid_in_our_time():
    """RAE: 1 - linspace(0, 0.999, 50), shifted by a, from noise at 1; its last point is 0.00689."""
    a = math.sqrt(768 * 16 * 16 / 4096)
    t = 1 - torch.linspace(0, 0.999, 50, dtype=torch.float64)
    theirs = a * t / (1 + (a - 1) * t)
    assert theirs[-1].item() == pytest.approx(0.00689, abs=5e-6)

    settings = SolverSettings(steps=49, shift_base=4096, end=0.999)
    ours = solver_times(settings.for_latent(LatentShape(768, 16)))

    torch.testing.assert_close(ours, (1 - theirs).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", ["euler_maruyama", "sde_heun"])
def test_gaes_times_of_250_steps(solver):
    """t_k = 0.4 u / (1 - 0.6 u) with 250 even u from 1e-5 to 0.996: 4.0e-6, ..., 0.99006."""
    times = solver_times(SolverSettings(solver=solver, steps=250, shift=0.4))
    assert times.shape == (250,)  # 249 noisy steps, and the last one after them
    assert times[0].item() == pytest.approx(4.0e-6, rel=1e-3)
    assert (times[1] - times[0]).item() == pytest.approx(1.6e-3, rel=0.01)
    u = 1e-5 + 100 * (0.996 - 1e-5) / 249
    assert times[100].item() == pytest.approx(0.4 * u / (1 - 0.6 * u), rel=1e-5)
    assert times[-1].item() == pytest.approx(0.99006, abs=5e-6)


def test_without_a_last_step_the_noisy_ones_reach_the_data():
    sde = SdeSettings(last_step="none")
    times = solver_times(SolverSettings(solver="euler_maruyama", steps=250, sde=sde))
    assert times.shape == (251,)
    assert times[-1] == 1
