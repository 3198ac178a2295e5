"""Power-function profiles: their closed forms against integrals, and their combinations."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.training.power_profiles import (
    Profile,
    combine,
    decay,
    exponent,
    log_products,
)

LENGTHS = st.floats(0.005, 0.28)


def weights(profile: Profile, steps: int) -> np.ndarray:
    """Share of each step in the average, by running it: w <- decay w, 1 - decay for the new."""
    shares = np.zeros(steps)
    for step in range(1, profile.step + 1):
        kept = decay(profile.length, step)
        shares *= kept
        shares[step - 1] = 1 - kept
    return shares


def density(profile: Profile, times: np.ndarray) -> np.ndarray:
    """p(s) = (g + 1) s^g / t^(g + 1) up to t, by logarithms; 0 afterwards."""
    g, t = exponent(profile.length), profile.step
    values = np.exp(np.log(g + 1) + g * np.log(times) - (g + 1) * math.log(t))
    return np.where(times <= t, values, 0.0)


@pytest.mark.parametrize(("length", "published"), [(0.05, 16.97), (0.10, 6.94), (0.25, 1.0)])
def test_exponents_are_those_of_the_paper(length: float, published: float) -> None:
    if length == 0.25:  # g = 1: length^2 = 2 / (9 * 4)
        length = math.sqrt(2 / 36)
    assert exponent(length) == pytest.approx(published, abs=5e-3)


@given(LENGTHS)
def test_the_relative_length_is_the_standard_deviation_of_the_profile(length: float) -> None:
    """E s = (g+1)/(g+2) and E s^2 = (g+1)/(g+3), for t = 1."""
    g = exponent(length)
    assert g >= 0
    variance = (g + 1) / (g + 3) - ((g + 1) / (g + 2)) ** 2
    assert math.sqrt(variance) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.28])
def test_each_step_has_the_weight_that_the_profile_has_before_it(length: float) -> None:
    """The integral of p over (k-1, k] is (k^(g+1) - (k-1)^(g+1)) / t^(g+1)."""
    steps, power = 40, exponent(length) + 1
    expected = np.diff((np.arange(steps + 1) / steps) ** power)
    found = weights(Profile(length, steps), steps)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found.sum() == pytest.approx(1)


THREE = (Profile(0.05, 300), Profile(0.1, 1000), Profile(0.28, 650))


@pytest.mark.parametrize(("one", "other"), list(product(THREE, repeat=2)))
def test_inner_products_are_integrals(one: Profile, other: Profile) -> None:
    count = 200_000
    times = (np.arange(count) + 0.5) * (1000 / count)
    integral = (density(one, times) * density(other, times)).sum() * (1000 / count)
    products = np.exp(log_products([one, other]))
    assert products[0, 1] == products[1, 0] == pytest.approx(integral, rel=1e-4)


def stored(steps: int, count: int) -> list[Profile]:
    return [Profile(x, steps * k // count) for k in range(1, count + 1) for x in (0.05, 0.1)]


@pytest.mark.parametrize("wanted", stored(1_000_000, 6))
def test_a_stored_profile_is_reproduced_exactly(wanted: Profile) -> None:
    profiles = stored(1_000_000, 6)
    found = combine(profiles, wanted)
    expected = [float(profile == wanted) for profile in profiles]
    assert found.factors == pytest.approx(expected, abs=1e-9)
    assert found.error < 1e-6


@settings(max_examples=20)
@given(st.floats(0.03, 0.2), st.integers(8, 24))
def test_the_error_is_that_of_the_combined_profile(length: float, count: int) -> None:
    """By its definition, on a fine grid of times."""
    profiles, wanted = stored(1000, count), Profile(length, 1000)
    found = combine(profiles, wanted)
    times = np.arange(0.025, 1000, 0.05)
    target = density(wanted, times)
    combined = sum(x * density(p, times) for x, p in zip(found.factors, profiles, strict=True))
    error = np.linalg.norm(combined - target) / np.linalg.norm(target)
    assert found.error == pytest.approx(error, abs=2e-3)


@pytest.mark.parametrize("length", [0.02, 0.07, 0.15, 0.25])
def test_no_other_factors_are_nearer(length: float) -> None:
    """The gradient of the squared distance, 2 (A x - b), is 0 at a minimum."""
    profiles, wanted = stored(5000, 10), Profile(length, 5000)
    products = np.exp(log_products([*profiles, wanted]))
    gradient = products[:-1, :-1] @ combine(profiles, wanted).factors - products[:-1, -1]
    assert gradient == pytest.approx(np.zeros(20), abs=1e-10 * products[-1, -1] ** 0.5 * 50)


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.2])
def test_more_snapshots_reproduce_a_length_better(length: float) -> None:
    errors = [combine(stored(10_000, n), Profile(length, 10_000)).error for n in (5, 20, 80)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 5e-3
