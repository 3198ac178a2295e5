"""Inception score: values worked out by hand, the order of images, and torch-fidelity's."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_fidelity.metric_isc import isc_features_to_metric

from pae_framework.errors import DataError
from pae_framework.metrics import inception_score
from pae_framework.metrics.inception_score import adm_inception_score, split_inception_score


def certain(labels, classes):
    """Logits of images that are of one class each."""
    return 1000.0 * torch.nn.functional.one_hot(torch.tensor(labels), classes)


def logits(count, classes=7, seed=0, scale=2.0):
    return scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("classes", [2, 10])
def test_certain_and_equally_frequent_classes_score_their_number(classes):
    # KL(one-hot | uniform) = log K
    assert adm_inception_score(certain(list(range(classes)) * 3, classes)) == pytest.approx(classes)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_fewer_images_than_blocks_have_no_score(count):
    with pytest.raises(DataError, match=str(count)):
        split_inception_score(logits(count))


def test_no_images_have_no_score_and_one_scores_one():
    with pytest.raises(DataError, match="0"):
        adm_inception_score(logits(0))
    assert adm_inception_score(logits(1)) == pytest.approx(1)


def test_images_that_all_look_alike_score_one():
    assert adm_inception_score(logits(1).expand(40, -1)) == pytest.approx(1)
    assert adm_inception_score(certain([3] * 40, 10)) == pytest.approx(1)


def test_two_images_with_known_probabilities():
    # p = (1/2, 1/2) and (9/10, 1/10), with the mean (7/10, 3/10).
    rows = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    first = 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3)
    second = 0.9 * math.log(0.9 / 0.7) + 0.1 * math.log(0.1 / 0.3)
    assert adm_inception_score(rows) == pytest.approx(math.exp((first + second) / 2))


def test_blocks_count_equally_even_if_the_last_is_shorter(monkeypatch):
    monkeypatch.setattr(inception_score, "ADM_BLOCK", 4)
    # Blocks: four classes, two classes, one image: scores 4, 2, 1.
    rows = certain([0, 1, 2, 3, 0, 0, 1, 1, 2], 4)
    assert adm_inception_score(rows) == pytest.approx((4 + 2 + 1) / 3)


def test_blocks_have_five_thousand_images():
    rows = certain([0] * 5000 + [1] * 5000, 2)
    assert adm_inception_score(rows) == pytest.approx(1)
    assert adm_inception_score(rows[1:]) > 1


def test_images_sorted_by_class_score_too_low_in_blocks(monkeypatch):
    monkeypatch.setattr(inception_score, "ADM_BLOCK", 10)
    by_class = certain(sorted(list(range(10)) * 10), 10)
    in_turn = certain(list(range(10)) * 10, 10)
    assert adm_inception_score(by_class) == pytest.approx(1)
    assert adm_inception_score(in_turn) == pytest.approx(10)
    # The other convention shuffles first.
    assert split_inception_score(by_class)[0] > 4


@given(st.integers(10, 60), st.integers(0, 1000))
def test_agrees_with_torch_fidelity(count, seed):
    rows = logits(count, seed=seed)
    theirs = isc_features_to_metric(rows)
    mean, deviation = split_inception_score(rows)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-6, abs=1e-9)


def test_one_unshuffled_block_agrees_with_torch_fidelity():
    rows = logits(90)
    theirs = isc_features_to_metric(rows, splits=1, shuffle=False)["inception_score_mean"]
    assert adm_inception_score(rows) == pytest.approx(theirs, rel=1e-6)
