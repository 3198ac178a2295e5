"""SSC: constructed tokens whose clusters are known."""

import math

import numpy as np
import pytest
import torch

from pae_evaluators.spatial_coherence import (
    affinity,
    coherence,
    image_coherences,
    segments_on_grid,
    spectral_clusters,
)

HALVES = torch.tensor([0] * 4 + [1] * 4)


def tokens_of(segments, noise=0.0, width=6, seed=0):
    """Tokens (N, width): one direction per segment, orthogonal, of varying length, with noise."""
    generator = torch.Generator().manual_seed(seed)
    length = 1 + torch.rand(len(segments), 1, generator=generator)
    return length * torch.eye(width)[segments] + noise * torch.randn(
        len(segments), width, generator=generator
    )


def test_affinity_by_hand():
    tokens = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    opposite = math.exp(-1 / 0.5)
    expected = [[0, 1, opposite], [1, 0, 1], [opposite, 1, 0]]
    np.testing.assert_allclose(affinity(tokens, sigma=0.5), expected, rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.01, 0.2, 2.0])
def test_tokens_that_follow_the_segments_score_one(sigma):
    assert coherence(tokens_of(HALVES), HALVES, sigma, seed=0) == pytest.approx(1)


def test_three_uneven_segments_with_noise_score_one():
    segments = torch.tensor([0] * 3 + [1] * 20 + [2] * 41)
    assert coherence(tokens_of(segments, noise=0.1), segments, 0.2, seed=0) == pytest.approx(1)


def test_names_of_segments_do_not_matter():
    names = torch.tensor([40, -7])[HALVES]
    assert coherence(tokens_of(HALVES), names, 0.2, seed=0) == pytest.approx(1)


def test_partial_agreement_by_hand():
    # Clusters of 4 and 4; segments of 6 and 2, the small one inside the second cluster.
    segments = torch.tensor([0] * 6 + [1] * 2)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    information = entropy - 0.5 * math.log(2)
    expected = information / math.sqrt(entropy * math.log(2))
    assert coherence(tokens_of(HALVES), segments, 0.2, seed=0) == pytest.approx(expected)


def test_random_tokens_score_near_zero():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(20, 64, 16, generator=generator)
    masks = torch.zeros(20, 8, 8, dtype=torch.int64)
    masks[:, :, 4:] = 1
    values = image_coherences(tokens, masks, sigma=0.2, seed=0)
    assert len(values) == 20
    assert sum(values) / 20 < 0.05


def test_two_clusters_are_the_normalized_cut():
    # The sign of the second eigenvector of D^-1/2 A D^-1/2, where degrees differ.
    segments = torch.tensor([0] * 12 + [1] * 24)
    affinities = affinity(tokens_of(segments, noise=0.25), sigma=0.2)
    root = 1 / np.sqrt(affinities.sum(1))
    _, vectors = np.linalg.eigh(root[:, None] * affinities * root[None, :])
    side = vectors[:, -2] > 0
    clusters = spectral_clusters(affinities, 2, seed=0).astype(bool)
    assert (clusters == side).all() or (clusters != side).all()


def test_as_many_segments_as_tokens():
    segments = torch.arange(4)
    assert coherence(tokens_of(segments), segments, 0.2, seed=0) == pytest.approx(1)


def test_images_with_one_segment_are_skipped():
    masks = torch.zeros(3, 8, 8, dtype=torch.int64)
    masks[1, :4] = 5
    masks[2, 0, 0] = 5  # a pixel in the corner, no majority in any cell
    tokens = torch.stack([tokens_of(torch.tensor([0] * 8 + [1] * 8))] * 3)
    assert image_coherences(tokens, masks, sigma=0.2, seed=0) == pytest.approx([1])


def test_the_same_seed_gives_the_same_clusters():
    affinities = affinity(torch.randn(64, 4, generator=torch.Generator().manual_seed(1)), 0.2)
    first, second = (spectral_clusters(affinities, 5, seed=2**40) for _ in range(2))
    assert (first == second).all()


def test_each_cell_takes_the_label_of_most_of_its_pixels():
    mask = torch.tensor(
        [
            [3, 3, 1, 1],
            [3, 9, 1, 9],
            [9, 9, 2, 2],
            [9, 0, 7, 7],  # bottom right: 2 and 7 tie, the smaller wins
        ]
    )
    assert segments_on_grid(mask, 2).tolist() == [3, 1, 9, 2]


def test_masks_whose_side_the_grid_does_not_divide():
    mask = torch.zeros(5, 5, dtype=torch.int64)
    mask[3:, 3:] = 1  # rows and columns 0-2 fall into the first cell, 3-4 into the second
    assert segments_on_grid(mask, 2).tolist() == [0, 0, 0, 1]
