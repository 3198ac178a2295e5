"""Frechet distance: golden number, closed forms, agreement with torch-fidelity, properties."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from pae_framework.errors import DataError
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.metrics.frechet import frechet_distance

GOLDEN = Path(__file__).parent.parent / "golden" / "adm_statistics.safetensors"
seeds = st.integers(0, 2**32 - 1)


def statistics(features, batches=1):
    found = FeatureStatistics(features.shape[1])
    for batch in features.tensor_split(batches):
        found.update(batch)
    return found


def features(count, width, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, width, generator=generator, dtype=torch.float64)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return scale * rows @ mix + shift


def gaussian(mean, covariance):
    """Statistics with exactly these moments, made from 2 D rows."""
    mean, covariance = torch.tensor(mean).double(), torch.tensor(covariance).double()
    root = torch.linalg.cholesky(covariance)
    width = len(mean)
    rows = torch.cat([root.T, -root.T]) * ((2 * width - 1) / 2) ** 0.5
    return statistics(rows + mean)


def test_the_adm_evaluators_number():
    golden = load_file(GOLDEN)
    found = frechet_distance(statistics(golden["in.samples"]), statistics(golden["in.reference"]))
    assert found == pytest.approx(golden["out.fid"].item(), abs=1e-5)


@pytest.mark.parametrize("count", [400, 12])  # 12 rows of width 20: singular covariances
def test_agrees_with_torch_fidelity(count):
    a, b = features(count, 20, seed=1), features(count + 5, 20, seed=2, scale=1.5, shift=0.3)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False
    )["frechet_inception_distance"]
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(theirs, rel=1e-6)


def test_gaussians_with_diagonal_covariances():
    # |m1 - m2|^2 + sum (s1 - s2)^2 = (9 + 16) + (2 - 1)^2 + (5 - 3)^2
    a = gaussian([0.0, 0.0], [[4.0, 0.0], [0.0, 25.0]])
    b = gaussian([3.0, -4.0], [[1.0, 0.0], [0.0, 9.0]])
    assert frechet_distance(a, b) == pytest.approx(30, rel=1e-12)


def test_gaussians_whose_covariances_do_not_commute():
    # For 2 x 2: tr (S1 S2)^(1/2) = (tr S1 S2 + 2 (det S1 det S2)^(1/2))^(1/2).
    a = gaussian([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]])
    b = gaussian([0.0, 0.0], [[4.0, -0.5], [-0.5, 1.0625]])
    product = 2 * 4 + 2 * 1.0625 - 2 * 0.5
    determinants = (3 * (4 * 1.0625 - 0.25)) ** 0.5
    expected = 4 + 5.0625 - 2 * (product + 2 * determinants) ** 0.5
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 10, 500])
def test_identical_sets_are_at_zero_even_with_fewer_images_than_dimensions(count):
    a = statistics(features(count, 64, seed=3))
    again = statistics(features(count, 64, seed=3))
    assert frechet_distance(a, a) == frechet_distance(a, again) == 0


def test_sets_without_any_spread_differ_by_their_means():
    a, b = torch.zeros(4, 3), torch.tensor([[1.0, 2.0, 2.0]]).expand(4, 3)
    assert frechet_distance(statistics(a), statistics(b)) == 9
    assert frechet_distance(statistics(a), statistics(a)) == 0


@given(seeds, st.integers(2, 30), st.integers(2, 30), st.integers(1, 8), st.floats(0, 100))
def test_symmetric_and_at_least_the_distance_of_the_means(seed, count_a, count_b, width, shift):
    a = statistics(features(count_a, width, seed))
    b = statistics(features(count_b, width, seed + 1, shift=shift))
    there, back = frechet_distance(a, b), frechet_distance(b, a)
    assert there == pytest.approx(back, rel=1e-9, abs=1e-8)
    assert there >= (a.mean - b.mean).square().sum().item() * (1 - 1e-9) - 1e-8


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_covariance(count):
    few, many = statistics(torch.zeros(count, 3)), statistics(torch.zeros(5, 3))
    for pair in ((few, many), (many, few), (few, few)):
        with pytest.raises(DataError, match=rf"2 images.* {count}"):
            frechet_distance(*pair)


def test_two_images_each():
    """On a line: means 1 and 4, variances 2 and 8."""
    a, b = statistics(torch.tensor([[0.0], [2.0]])), statistics(torch.tensor([[2.0], [6.0]]))
    assert frechet_distance(a, b) == pytest.approx(9 + 2 + 8 - 2 * 4)
