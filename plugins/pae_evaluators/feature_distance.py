"""Frechet distances to test or training images, in the features of the extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pae_framework.contracts import EvaluationInputs, FeatureReference, Metric
from pae_framework.metrics.feature_statistics import PART, FeatureStatistics, statistics_of
from pae_framework.metrics.frechet import frechet_distance


class FeatureDistance:
    """Measures sets of images against a reference."""

    def __init__(self, inputs: EvaluationInputs, reference: FeatureReference):
        self.inputs, self.reference = inputs, reference

    def metric(
        self,
        group: str,
        label: str,
        images: Tensor,
        *,
        subject: Mapping[str, Any],
        at: Mapping[str, Any] | None = None,
        protocol: Mapping[str, Any] | None = None,
    ) -> Metric:
        """``group/fd_<extractor>`` of images (M, 3, S, S) uint8.

        Args:
            group: the name before the slash.
            label: a short table heading.
            images: the images.
            subject: what they are.
            at: what varies within the group.
            protocol: how they were made.
        """
        statistics = self.statistics(images)
        return self.metric_of(group, label, statistics, subject=subject, at=at, protocol=protocol)

    @property
    def width(self) -> int:
        """Width of the features."""
        return len(self.reference.mean)

    def statistics(self, images: Tensor) -> FeatureStatistics:
        """Statistics of the features of images (M, 3, S, S) uint8."""
        return statistics_of(images, self.inputs.extractor, self.width)

    def metric_of(
        self,
        group: str,
        label: str,
        statistics: FeatureStatistics,
        *,
        subject: Mapping[str, Any],
        at: Mapping[str, Any] | None = None,
        protocol: Mapping[str, Any] | None = None,
    ) -> Metric:
        """The same of the statistics of images."""
        extractor = self.inputs.extractor
        return Metric(
            name=f"{group}/fd_{extractor.name}",
            label=extractor.label(label),
            value=frechet_distance(statistics, self.reference),
            higher_is_better=False,
            protocol={
                **self.reference.protocol,
                **(protocol or {}),
                **self.inputs.protocol_of("extractor"),
                "feature_width": self.width,
                "covariance": "unbiased, float64",
                "count": statistics.count,
            },
            at=at or {},
            subject=subject,
        )


class DistanceToTestImages(FeatureDistance):
    """Measures sets of images against all test images."""

    def __init__(self, inputs: EvaluationInputs):
        features = inputs.image_features
        found = FeatureStatistics(features.shape[1])
        for part in features.split(PART):
            found.update(part)
        protocol = {
            **inputs.protocol_of("test_images"),
            "reference": "test images",
            "reference_count": found.count,
        }
        super().__init__(
            inputs, FeatureReference(found.mean, found.covariance, found.count, protocol)
        )
