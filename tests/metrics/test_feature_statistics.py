"""Streamed moments equal those of all rows at once, however the rows are cut and merged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pae_framework.errors import DataError, RunError
from pae_framework.metrics.feature_statistics import FeatureStatistics

seeds = st.integers(0, 2**32 - 1)
WIDTH = 5


def rows_of(count, seed, offset=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    mix = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    return scale * rows @ mix + offset


def statistics(chunks):
    found = FeatureStatistics(WIDTH)
    for chunk in chunks:
        found.update(chunk)
    return found


def assert_moments(found, rows):
    """Equal to all at once, to 1e-9 of the size of what is summed."""
    centered = np.cov(rows.numpy(), rowvar=False)
    size = np.abs(np.diag(centered)).max() + np.abs(rows.numpy()).max() ** 2 * 1e-7
    assert found.count == len(rows)
    np.testing.assert_allclose(found.mean, rows.numpy().mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.covariance, centered, rtol=1e-9, atol=1e-9 * size)


cuts = st.lists(st.integers(0, 60), max_size=12).map(sorted)


@given(seeds, st.integers(2, 60), cuts, st.sampled_from([0.0, 1e3]))
def test_any_cut_into_batches_gives_the_moments_of_all_rows(seed, count, at, offset):
    rows = rows_of(count, seed, offset)
    assert_moments(statistics(rows.tensor_split([min(cut, count) for cut in at])), rows)


@given(seeds, st.integers(2, 60), cuts, st.integers(1, 5), st.sampled_from([0.0, 1e3]))
def test_processes_that_share_the_rows_merge_to_the_moments_of_all(seed, count, at, size, offset):
    rows = rows_of(count, seed, offset)
    batches = rows.tensor_split([min(cut, count) for cut in at])
    shares = [statistics(batches[rank::size]) for rank in range(size)]  # some have no rows
    merged = FeatureStatistics(WIDTH)
    for share in shares:
        merged.merge(share)
    assert_moments(merged, rows)


def test_merging_leaves_the_other_statistics_as_they_are():
    first, second = statistics([rows_of(9, 1)]), statistics([rows_of(4, 2)])
    mean, covariance = second.mean.clone(), second.covariance.clone()
    first.merge(second)
    first.update(rows_of(3, 3))
    assert second.count == 4
    assert torch.equal(second.mean, mean)
    assert torch.equal(second.covariance, covariance)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_covariance(count):
    found = statistics([rows_of(count, 1)])
    assert found.count == count
    with pytest.raises(DataError, match=rf"at least 2 images, not {count}"):
        _ = found.covariance


def test_two_images_have_the_covariance_of_half_their_squared_difference():
    found = statistics([torch.zeros(1, WIDTH), torch.full((1, WIDTH), 2.0)])
    assert found.mean.tolist() == [1.0] * WIDTH
    assert found.covariance.tolist() == [[2.0] * WIDTH] * WIDTH


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_features_of_lower_precision_are_summed_in_float64(dtype):
    rows = (rows_of(1000, seed=5) + 100).to(dtype)
    assert_moments(statistics(rows.tensor_split(10)), rows.double())


def test_a_large_mean_costs_no_precision():
    # 100 000 rows around 1000: sums of squares in float32 would lose all digits of the variance.
    rows = torch.randn(100_000, WIDTH, generator=torch.Generator().manual_seed(0)) + 1000
    found = statistics(rows.split(1000))
    expected = np.cov(rows.double().numpy(), rowvar=False)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-9)


def test_memory_does_not_grow_with_the_rows():
    found = statistics(rows_of(50, seed) for seed in range(20))
    held = sum(v.numel() for v in vars(found).values() if isinstance(v, torch.Tensor))
    assert held == WIDTH + WIDTH**2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_refused(value):
    rows = torch.zeros(3, WIDTH)
    rows[1, 2] = value
    with pytest.raises(RunError, match="NaN"):
        statistics([rows])
