"""Frechet distance between two sets of features, from statistics that stream.

The distance between the Gaussians fitted to both sets (Heusel et al., arXiv 1706.08500), as the ADM
evaluator (openai/guided-diffusion) and torch-fidelity compute it: unbiased covariances, float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.errors import DataError, RunError


class FeatureStatistics:
    """Count, mean and covariance of features seen in batches; memory does not grow with the count.

    Batches are merged by the update of Chan, Golub and LeVeque (1979): the result equals that of
    all rows at once, up to rounding.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    @property
    def width(self) -> int:
        """Width D of the features."""
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (D, D), float64.

        Raises:
            DataError: there are fewer than two rows.
        """
        if self.count < 2:
            raise DataError(f"a covariance needs at least 2 images, not {self.count}")
        return self._scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Add features (M, D) of any float type.

        Raises:
            RunError: a feature is not finite.
        """
        assert features.shape[1:] == self.mean.shape, f"expected (M, D), not {features.shape}"
        if not features.isfinite().all():
            raise RunError("features contain NaN or infinity, so there is no Frechet distance")
        rows = features.detach().to("cpu", torch.float64)
        if len(rows) == 0:
            return
        count, mean = len(rows), rows.mean(0)
        total = self.count + count
        centered, shift = rows - mean, mean - self.mean
        self._scatter = (
            self._scatter
            + centered.T @ centered
            + torch.outer(shift, shift) * (self.count * count / total)
        )
        self.mean = self.mean + shift * (count / total)
        self.count = total


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Compute ``|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)``.

    Finite for singular and for identical covariances. Rounding errors below zero become zero.

    Raises:
        DataError: a set has fewer than two images.
    """
    assert a.width == b.width, f"features of widths {a.width} and {b.width}"
    shift = (a.mean - b.mean).square().sum()
    spread = a.covariance.trace() + b.covariance.trace()
    value = shift + spread - 2 * _trace_of_root(a.covariance, b.covariance)
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
