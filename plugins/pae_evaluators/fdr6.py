"""FDr6 of samples against the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from pae_framework.contracts import EvaluationInputs, Metric, SampleSet
from pae_framework.metrics.fdr6 import INCEPTION, JUDGES, RANDOM, VALIDATION, fdr6
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.metrics.frechet import frechet_distance
from pae_framework.metrics.inception import WeightsIdentity

PART = 5000
"""Images whose features are in memory at once."""


def lacks(inception: WeightsIdentity, weights: str, has_images: bool, count: int) -> str | None:
    """Why FDr6 is not available; None if it is.

    Args:
        inception: its weights.
        weights: those of the other networks: ``default``, ``none`` or a folder.
        has_images: whether the reference is images, not only Inception's statistics.
        count: number of samples.
    """
    if count < 2:
        return f"it needs at least 2 samples, not {count}"
    if not has_images:
        return f"the reference lacks statistics in the features of {', '.join(JUDGES)}"
    absent = [name for name, judge in JUDGES.items() if judge.missing(weights)]
    if not inception.published and weights != RANDOM:
        absent.insert(0, f"{INCEPTION} with the published weights")
    return f"lacks {', '.join(absent)}" if absent else None


def measure_fdr6(
    inputs: EvaluationInputs, samples: SampleSet, weights: str, inception: Metric
) -> Iterator[Metric]:
    """FDr6, and the five distances behind it that are not Inception's.

    Args:
        inputs: the test images are the reference.
        samples: the samples.
        weights: of the networks: ``default``, ``none`` or a folder.
        inception: the distance in Inception's features, whose protocol is taken.
    """
    random = weights == RANDOM
    mark, key = (" (random)", "_random") if random else ("", "")
    distances = {INCEPTION: inception.value}
    for name, judge in JUDGES.items():
        features = inputs.judge(name, weights)
        of_samples = _statistics(samples.images, features, judge.width)
        of_reference = _statistics(inputs.images, features, judge.width)
        distances[name] = frechet_distance(of_samples, of_reference)
        yield _metric(
            f"fd_{name.partition('.')[0]}{key}",
            f"FD ({'random ' * random}{name})",
            distances[name],
            inception,
            {"features": f"{name}, {judge.pool}, {judge.width} wide", "over": judge.validation},
        )
    constants = {"mean_of": "distance / that of ImageNet's validation images", "over": VALIDATION}
    yield _metric(f"fdr6{key}", f"FDr6{mark}", fdr6(distances), inception, constants)


def _metric(
    key: str, label: str, value: float, inception: Metric, protocol: Mapping[str, Any]
) -> Metric:
    changed = {"resize": "bicubic, antialiased", "extractor": "timm", **protocol}
    shared = {k: v for k, v in inception.protocol.items() if k != "extractor_sha256"}
    return Metric(
        name=f"fidelity/{key}",
        label=label,
        value=value,
        higher_is_better=False,
        at=inception.at,
        subject=inception.subject,
        protocol={**shared, **changed},
    )


def _statistics(
    images: Tensor, features: Callable[[Tensor], Tensor], width: int
) -> FeatureStatistics:
    statistics = FeatureStatistics(width)
    for part in images.split(PART):
        for some in features(part).split(250):
            statistics.update(some)
    return statistics
