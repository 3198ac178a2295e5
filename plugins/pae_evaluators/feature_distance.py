"""Frechet distances to test or training images, in the features of the extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pae_framework.contracts import EvaluationInputs, Extractor, FeatureReference, Metric
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.metrics.frechet import frechet_distance

BATCH = 250
"""Images whose features are added to the statistics at once."""
EXTRACTED = 40 * BATCH
"""Images whose features are in memory at once; several processes share them."""


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
        extractor = self.inputs.extractor
        width = len(self.reference.mean)
        statistics = _statistics(images, extractor, width)
        return Metric(
            name=f"{group}/fd_{extractor.name}",
            label=extractor.label(label),
            value=frechet_distance(statistics, self.reference),
            higher_is_better=False,
            protocol={
                **self.inputs.protocol_of("test_images"),
                **(protocol or {}),
                **self.inputs.protocol_of("extractor"),
                "feature_width": width,
                "covariance": "unbiased, float64",
                "count": statistics.count,
                **self.reference.protocol,
            },
            at=at or {},
            subject=subject,
        )


class DistanceToTestImages(FeatureDistance):
    """Measures sets of images against all test images."""

    def __init__(self, inputs: EvaluationInputs):
        features = inputs.image_features
        found = FeatureStatistics(features.shape[1])
        for part in features.split(EXTRACTED):
            found.update(part)
        protocol = {"reference": "test images", "reference_count": found.count}
        super().__init__(
            inputs, FeatureReference(found.mean, found.covariance, found.count, protocol)
        )


def _statistics(images: Tensor, extractor: Extractor, width: int) -> FeatureStatistics:
    statistics = FeatureStatistics(width)
    for part in images.split(EXTRACTED):
        for features in extractor(part).split(BATCH):
            statistics.update(features)
    return statistics
