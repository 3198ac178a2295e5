"""Frechet distances to the test images, in the features of the extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pae_framework.contracts import EvaluationInputs, Extractor, Metric
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.metrics.frechet import frechet_distance

BATCH = 250
"""Images whose features are added to the statistics at once."""
EXTRACTED = 40 * BATCH
"""Images whose features are in memory at once; several processes share them."""


class DistanceToTestImages:
    """Measures sets of images against all test images."""

    def __init__(self, inputs: EvaluationInputs):
        self.inputs = inputs
        self.reference = FeatureStatistics(inputs.image_features.shape[1])
        self.reference.update(inputs.image_features)

    def metric(
        self,
        group: str,
        label: str,
        images: Tensor,
        *,
        at: Mapping[str, Any] | None = None,
        protocol: Mapping[str, Any] | None = None,
    ) -> Metric:
        """``group/fd_<extractor>`` of images (M, 3, S, S) uint8; ``protocol``: their origin."""
        return self.metric_of(group, label, self.statistics(images), at=at, protocol=protocol)

    def statistics(self, images: Tensor) -> FeatureStatistics:
        """Statistics of the features of images (M, 3, S, S) uint8."""
        return _statistics(images, self.inputs.extractor, self.reference.width)

    def metric_of(
        self,
        group: str,
        label: str,
        statistics: FeatureStatistics,
        *,
        at: Mapping[str, Any] | None = None,
        protocol: Mapping[str, Any] | None = None,
    ) -> Metric:
        """The same of the statistics of images."""
        extractor = self.inputs.extractor
        return Metric(
            name=f"{group}/fd_{extractor.name}",
            label=label,
            value=frechet_distance(statistics, self.reference),
            higher_is_better=False,
            protocol={
                **self.inputs.protocol,
                **(protocol or {}),
                "extractor": extractor.name,
                "feature_width": self.reference.width,
                "covariance": "unbiased, float64",
                "count": statistics.count,
                "reference": "test images",
                "reference_count": self.reference.count,
            },
            at=at or {},
        )


def _statistics(images: Tensor, extractor: Extractor, width: int) -> FeatureStatistics:
    statistics = FeatureStatistics(width)
    for part in images.split(EXTRACTED):
        for features in extractor(part).split(BATCH):
            statistics.update(features)
    return statistics
