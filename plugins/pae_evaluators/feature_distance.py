"""Frechet distances to the test images, in the features of the extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pae_evaluators.frechet import FeatureStatistics, frechet_distance
from pae_framework.contracts import EvaluationInputs, Extractor, Metric, SampleSet

BATCH = 250


class DistanceToTestImages:
    """Measures sets of images against all test images, whose features the inputs holds."""

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
        """``group/fd_<extractor>`` of images (M, 3, S, S) uint8, sampled as ``protocol`` says."""
        extractor = self.inputs.extractor
        statistics = statistics_of(images, extractor)
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


def statistics_of(images: Tensor, extractor: Extractor) -> FeatureStatistics:
    """Feature statistics of images (M, 3, S, S) uint8, batch by batch."""
    first, *rest = images.split(BATCH)
    features = extractor(first)
    statistics = FeatureStatistics(features.shape[1])
    statistics.update(features)
    for batch in rest:
        statistics.update(extractor(batch))
    return statistics


def sampling_protocol(samples: SampleSet) -> dict[str, Any]:
    """How a set was sampled, for the protocol of its metric."""
    return {
        **samples.protocol,
        "role": samples.role,
        "generator_step": samples.generator_step,
        "steps": samples.steps,
    }
