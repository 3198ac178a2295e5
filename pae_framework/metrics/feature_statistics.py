"""Mean and covariance of features: streamed in float64, merged over processes, read from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pae_framework.errors import DataError, RunError

_BATCH = 250
"""Images whose features are added to the statistics at once."""
PART = 20 * _BATCH
"""Images whose features are in memory at once; several processes share them."""


class Gaussian(Protocol):
    """A normal distribution of features of width D."""

    @property
    def mean(self) -> Tensor:
        """(D,) float64."""

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (D, D) float64."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) and covariance (D, D), float64, that someone else computed."""

    mean: Tensor
    covariance: Tensor


class FeatureStatistics:
    """Count, mean and covariance of features seen in batches; memory does not grow with the count.

    Batches are merged by the update of Chan, Golub and LeVeque (1979): the result equals that of
    all rows at once, up to rounding.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> FeatureStatistics:
        """The statistics that :attr:`tensors` were of."""
        statistics = cls(len(tensors["mean"]))
        statistics.count = int(tensors["count"])
        statistics.mean, statistics._scatter = tensors["mean"], tensors["scatter"]
        return statistics

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that further rows are added to."""
        return {
            "count": torch.tensor([self.count]),
            "mean": self.mean,
            "scatter": self._scatter,
        }

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
        if len(features) == 0:
            return
        rows = features.detach().to("cpu", torch.float64)
        mean = rows.mean(0)
        centered = rows - mean
        self._scatter += centered.T @ centered
        self._shift(len(rows), mean)

    def merge(self, other: FeatureStatistics) -> None:
        """Add the rows that ``other`` has seen, for example in another process."""
        assert other.width == self.width, f"features of widths {self.width} and {other.width}"
        if other.count == 0:
            return
        self._scatter += other._scatter
        self._shift(other.count, other.mean)

    def _shift(self, count: int, mean: Tensor) -> None:
        """Account for the means of the rows so far and of ``count`` further rows."""
        total = self.count + count
        shift = mean - self.mean
        self._scatter += torch.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total


def statistics_of(
    images: Tensor, extract: Callable[[Tensor], Tensor], width: int
) -> FeatureStatistics:
    """Statistics of the features of images, part by part.

    Args:
        images: (M, 3, S, S) uint8.
        extract: features (N, D) of N of the images.
        width: of the features, D.

    Raises:
        RunError: a feature is not finite.
    """
    statistics = FeatureStatistics(width)
    for part in images.split(PART):
        for features in extract(part).split(_BATCH):
            statistics.update(features)
    return statistics
