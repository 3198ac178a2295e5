"""Frechet distances to the test images, in Inception's pooled features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pae_framework.contracts import EvaluationInputs, Metric
from pae_framework.metrics.conventions import network_protocol
from pae_framework.metrics.feature_statistics import FeatureStatistics, statistics_of
from pae_framework.metrics.frechet import frechet_distance
from pae_framework.metrics.inception import WeightsIdentity


class InceptionDistance:
    """Measures sets of images against all test images.

    Args:
        inputs: of the evaluator.
        weights: of the network; only with the published ones a distance is called FID.
    """

    def __init__(self, inputs: EvaluationInputs, weights: str):
        self._network = inputs.inception(weights)
        self._images = inputs.protocol_of("test_images")
        self.reference = self.statistics(inputs.images)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self._network.widths[0]

    def statistics(self, images: Tensor) -> FeatureStatistics:
        """Statistics of the features of images (M, 3, S, S) uint8."""
        return statistics_of(images, lambda part: self._network(part)[0], self.width)

    def metric_of(
        self,
        group: str,
        label: str,
        statistics: FeatureStatistics,
        *,
        subject: Mapping[str, Any],
        protocol: Mapping[str, Any] | None = None,
    ) -> Metric:
        """``group/fid`` of the statistics of images; with other weights the name is that of an FD.

        Args:
            group: of the metric's name.
            label: the label of the distance in other features, such as ``rFD``.
            statistics: of the images.
            subject: what they are.
            protocol: how they were made.
        """
        weights = WeightsIdentity(self._network.sha256)
        words = weights.words
        key = "fid" if weights.published else f"fd_{words.lower().replace(' ', '_')}"
        return Metric(
            name=f"{group}/{key}",
            label=label.replace("FD", "FID") if weights.published else f"{label} ({words})",
            value=frechet_distance(statistics, self.reference),
            higher_is_better=False,
            protocol={
                **self._images,
                **(protocol or {}),
                **network_protocol(weights),
                "features": f"pool_3, {self.width} wide",
                "covariance": "unbiased, float64",
                "count": statistics.count,
                "reference": "test images",
                "reference_count": self.reference.count,
            },
            subject=subject,
        )
