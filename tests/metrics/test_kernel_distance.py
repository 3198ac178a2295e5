"""Kernel distance: a value worked out by hand, agreement with torch-fidelity, properties."""

import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from pae_framework.errors import DataError
from pae_framework.metrics import kernel_distance as module
from pae_framework.metrics.kernel_distance import kernel_distance, subset_size


def normal(count, width=6, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) + shift


def test_two_points_against_two():
    # k(a, b) = (ab + 1)^3. x = {0, 1}, y = {2, 3}:
    # within x: 2 k(0, 1) / 2 = 1; within y: k(2, 3) = 343; across: (1 + 1 + 27 + 64) / 4.
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    mean, deviation = kernel_distance(x, y)
    assert mean == pytest.approx(1 + 343 - 2 * 93 / 4)
    assert deviation is None


def test_the_kernel_divides_by_the_width():
    # Repeating each feature leaves (x . y) / D as it is.
    x, y = normal(30), normal(40, seed=1, shift=0.5)
    once, twice = kernel_distance(x, y), kernel_distance(x.repeat(1, 2), y.repeat(1, 2))
    assert once == pytest.approx(twice, rel=1e-9)


@pytest.mark.parametrize(("count", "reference_count"), [(50, 50), (50, 60), (60, 50)])
def test_agrees_with_torch_fidelity(monkeypatch, count, reference_count):
    monkeypatch.setattr(module, "SUBSET", 40)
    x, y = normal(count), normal(reference_count, seed=1, shift=0.3)
    theirs = kid_features_to_metric(x, y, kid_subset_size=40, verbose=False)
    mean, deviation = kernel_distance(x, y)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)


def test_sets_of_one_distribution_are_at_zero_on_average(monkeypatch):
    monkeypatch.setattr(module, "SUBSET", 50)
    near = kernel_distance(normal(500), normal(500, seed=1))
    far = kernel_distance(normal(500), normal(500, seed=1, shift=1))
    assert abs(near[0]) < 0.1 < far[0]
    assert near[1] > 0


@pytest.mark.parametrize(
    ("count", "reference_count", "varies"),
    [(40, 40, False), (30, 30, False), (40, 41, True), (41, 40, True), (41, 41, True)],
)
def test_there_is_a_deviation_if_subsets_differ(monkeypatch, count, reference_count, varies):
    monkeypatch.setattr(module, "SUBSET", 40)
    mean, deviation = kernel_distance(normal(count), normal(reference_count, seed=1, shift=0.3))
    theirs = kid_features_to_metric(
        normal(count),
        normal(reference_count, seed=1, shift=0.3),
        kid_subset_size=min(40, count),
        verbose=False,
    )
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert (deviation is not None) == varies
    if varies:
        assert deviation > 1e-6


def test_identical_sets_are_not_above_zero():
    """The kernel of equal images is left out within a set, but not across: it is the largest."""
    rows = normal(30)
    assert kernel_distance(rows, rows.clone())[0] < 0


@pytest.mark.parametrize(("count", "reference_count"), [(0, 5), (1, 5), (5, 0), (5, 1)])
def test_too_few_images_are_refused(count, reference_count):
    with pytest.raises(DataError, match=str(min(count, reference_count))):
        kernel_distance(normal(count), normal(reference_count))


def test_subsets_have_a_thousand_images_or_all_of_the_smaller_set():
    assert subset_size(50_000, 10_000) == 1000
    assert subset_size(50_000, 300) == 300
    assert subset_size(2, 10_000) == 2
