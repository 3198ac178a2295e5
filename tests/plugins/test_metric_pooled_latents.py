"""GSQ and eRank on pooled latents whose answers are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from pae_evaluators.pooled_latents import draw_images, effective_rank, same_class_neighbors


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- GSQ ----------------------------------------------------------------------------------------


def test_neighbors_by_hand():
    # Around the mean (1, 1) the points lie at 0, 10, 180 and 170 degrees: pairs {0, 1} and {2, 3}.
    angles = torch.tensor([0.0, 10.0, 180.0, 170.0]).deg2rad()
    points = torch.stack([angles.cos(), angles.sin()], 1)
    points = (
        torch.cat([points, -points.sum(0, keepdim=True)]) + 1
    )  # a fifth brings the mean to (1, 1)
    # The fifth, straight down, is nobody's nearest, and its own class has no other member.
    assert same_class_neighbors(points, torch.tensor([0, 0, 1, 1, 9])) == pytest.approx(4 / 5)
    assert same_class_neighbors(points, torch.tensor([0, 1, 0, 1, 9])) == 0


def test_an_image_is_not_its_own_neighbor():
    opposite = torch.tensor([[0.0, 1.0], [3.0, 0.0]])  # around their mean, cosine -1
    assert same_class_neighbors(opposite, torch.tensor([0, 1])) == 0


def test_separated_classes_score_one():
    labels = torch.arange(60) % 6
    pooled = torch.eye(6)[labels] + 0.01 * torch.randn(60, 6, generator=seeded())
    assert same_class_neighbors(pooled, labels) == 1


@pytest.mark.parametrize("classes", [2, 10])
def test_random_labels_score_one_over_the_classes(classes):
    pooled = torch.randn(3000, 8, generator=seeded())
    labels = torch.randint(classes, (3000,), generator=seeded(1))
    deviation = math.sqrt((1 / classes) * (1 - 1 / classes) / 3000)
    assert same_class_neighbors(pooled, labels) == pytest.approx(1 / classes, abs=5 * deviation)


def test_agrees_with_scikit_learns_neighbors():
    labels = torch.arange(200) % 5
    pooled = torch.eye(5)[labels] + 0.6 * torch.randn(200, 5, generator=seeded()) + 3
    centered = (pooled.double() - pooled.double().mean(0)).numpy()
    nearest = NearestNeighbors(n_neighbors=2, metric="cosine").fit(centered).kneighbors()[1][:, 0]
    expected = (labels[nearest] == labels).double().mean().item()
    assert 0.2 < expected < 1
    assert same_class_neighbors(pooled, labels) == pytest.approx(expected)
    assert same_class_neighbors(pooled, labels, batch_size=7) == pytest.approx(expected)


def test_an_offset_common_to_all_images_does_not_matter():
    labels = torch.arange(100) % 4
    pooled = (torch.eye(4)[labels] + 0.4 * torch.randn(100, 4, generator=seeded())).double()
    assert same_class_neighbors(pooled, labels) == same_class_neighbors(pooled + 50, labels)


# --- draws --------------------------------------------------------------------------------------


def test_a_draw_is_half_of_the_images():
    labels = torch.arange(101) % 10
    first, second = draw_images(labels, None, seeded(0)), draw_images(labels, None, seeded(1))
    assert len(first) == len(second) == 51
    assert len(first.unique()) == 51
    assert set(first.tolist()) != set(second.tolist())


def test_a_draw_of_many_classes_is_all_images_of_a_hundred():
    labels = torch.arange(600) % 150  # four images each
    drawn = draw_images(labels, None, seeded())
    assert len(drawn.unique()) == len(drawn) == 400
    assert labels[drawn].unique(return_counts=True)[1].tolist() == [4] * 100


@pytest.mark.parametrize("classes", [10, 150])
def test_the_size_of_a_draw_can_be_set(classes):
    drawn = draw_images(torch.arange(600) % classes, 30, seeded())
    assert len(drawn.unique()) == len(drawn) == 30


def test_a_draw_is_no_larger_than_the_data():
    assert draw_images(torch.arange(6) % 2, 1000, seeded()).sort().values.tolist() == [*range(6)]


# --- eRank --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_equal_singular_values_count_dimensions(rank):
    rows = torch.linalg.qr(torch.randn(40, 8, generator=seeded()).double()).Q[:, :rank]
    columns = torch.linalg.qr(torch.randn(8, 8, generator=seeded(1)).double()).Q[:rank]
    assert effective_rank(5 * rows @ columns) == pytest.approx(rank / 8)


def test_effective_rank_by_hand():
    # Singular values 3 and 1: shares 3/4 and 1/4.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    matrix = torch.tensor([[0.0, 3.0], [1.0, 0.0], [0.0, 0.0]])
    assert effective_rank(matrix) == pytest.approx(math.exp(entropy) / 2)


def test_effective_rank_of_nothing_is_the_least():
    assert effective_rank(torch.zeros(5, 4)) == 1 / 4


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_effective_rank_lies_between_one_dimension_and_all(rows, channels, seed):
    value = effective_rank(torch.randn(rows, channels, generator=seeded(seed)))
    assert 1 / channels - 1e-9 <= value <= min(rows, channels) / channels + 1e-9
