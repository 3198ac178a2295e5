"""Frechet distance between the Gaussians fitted to two sets of features.

Heusel et al., arXiv 1706.08500, as the ADM evaluator (openai/guided-diffusion) and torch-fidelity
compute it: unbiased covariances, float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.metrics.feature_statistics import Gaussian


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Compute ``|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)``.

    Finite for singular covariances, and 0 for identical sets. Rounding errors below zero become
    zero.

    Raises:
        DataError: a set has fewer than two images.
    """
    assert a.mean.shape == b.mean.shape, f"features of widths {len(a.mean)} and {len(b.mean)}"
    if torch.equal(a.mean, b.mean) and torch.equal(a.covariance, b.covariance):
        return 0.0
    shift = (a.mean - b.mean).square().sum()
    first, second = a.covariance, b.covariance
    spread = first.trace() + second.trace()
    value = shift + spread - 2 * _trace_of_root(first, second)
    return max(0.0, value.item())


def _trace_of_root(first: Tensor, second: Tensor) -> Tensor:
    """``tr (S1 S2)^(1/2)`` of two covariances, by the symmetric form.

    It is the sum of the roots of the eigenvalues of ``S1^(1/2) S2 S1^(1/2)``. These roots are the
    singular values of ``S1^(1/2) S2^(1/2)``. Computing those avoids roots of rounding errors, which
    would add 1e-8 of the covariance's size for each missing dimension of a singular covariance.
    """
    return torch.linalg.svdvals(_root(first).T @ _root(second)).sum()


def _root(covariance: Tensor) -> Tensor:
    """``R`` (D, r) with ``R R^T`` the covariance, without directions of rounding error."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    kept = values > floor
    return vectors[:, kept] * values[kept].sqrt()
