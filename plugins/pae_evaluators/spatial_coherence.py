"""SSC: whether an image's tokens cluster into its visible segments.

PAE (arXiv 2605.07915), diagnostics: spectral clustering of the tokens, compared with a mask.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import SpectralClustering
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor


def image_coherences(tokens: Tensor, masks: Tensor, sigma: float, seed: int) -> list[float]:
    """SSC of each image whose mask has at least two segments on the token grid; skips the others.

    Args:
        tokens: (M, N, D) of M images, N = grid * grid in row-major order.
        masks: (M, S, S) integer labels.
        sigma: temperature of the affinity.
        seed: of the clustering's starting points.
    """
    grid = math.isqrt(tokens.shape[1])
    segments = [segments_on_grid(mask, grid) for mask in masks]
    return [
        coherence(image, labels, sigma, seed)
        for image, labels in zip(tokens, segments, strict=True)
        if len(labels.unique()) > 1
    ]


def coherence(tokens: Tensor, segments: Tensor, sigma: float, seed: int) -> float:
    """Agreement, 0 to 1, of clustered tokens with the segments of the mask.

    This is the normalized mutual information (geometric mean) of the segments and a normalized
    spectral clustering with the same number of clusters. The affinity is ``exp(cosine / sigma)``
    with a zero diagonal.

    Args:
        tokens: (N, D) of one image.
        segments: (N,) the segment of each token; at least two different ones.
        sigma: temperature of the affinity.
        seed: of the clustering's starting points.
    """
    clusters = spectral_clusters(affinity(tokens, sigma), len(segments.unique()), seed)
    score = normalized_mutual_info_score(
        segments.cpu().numpy(), clusters, average_method="geometric"
    )
    return float(score)


def affinity(tokens: Tensor, sigma: float) -> NDArray[np.float64]:
    """``exp(<z_i, z_j> / sigma)`` (N, N) of l2-normalized tokens (N, D), zero on the diagonal."""
    unit = F.normalize(tokens.detach().double(), dim=-1)
    return ((unit @ unit.T) / sigma).exp().fill_diagonal_(0).cpu().numpy()


def spectral_clusters(affinities: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int_]:
    """Cluster (N,) of each of N points, from affinities (N, N), by scikit-learn."""
    if count >= len(affinities):  # the eigensolver finds fewer vectors than there are points
        return np.arange(len(affinities))
    clustering = SpectralClustering(count, affinity="precomputed", random_state=seed % 2**32)
    return clustering.fit_predict(affinities)


def segments_on_grid(mask: Tensor, grid: int) -> Tensor:
    """Most frequent label (grid * grid,) of the pixels of each token; the smallest in a tie.

    Args:
        mask: (S, S) integer labels; S need not be a multiple of ``grid``.
        grid: cells per side.
    """
    size = mask.shape[-1]
    line = torch.arange(size, device=mask.device) * grid // size
    cell = line[:, None] * grid + line[None, :]
    labels, inverse = mask.unique(return_inverse=True)
    votes = torch.bincount(
        (cell * len(labels) + inverse).flatten(), minlength=grid * grid * len(labels)
    )
    return labels[votes.view(grid * grid, len(labels)).argmax(1)]
