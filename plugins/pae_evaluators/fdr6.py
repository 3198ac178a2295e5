"""FDr6 of samples against the training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from torch import Tensor

from pae_evaluators.config import FidelityConfig
from pae_framework.contracts import EvaluationInputs, FDr6Features, Metric
from pae_framework.metrics.conventions import network_protocol
from pae_framework.metrics.fdr6 import INCEPTION, NETWORKS, RANDOM, VALIDATION, fdr6
from pae_framework.metrics.feature_statistics import FeatureStatistics
from pae_framework.metrics.frechet import frechet_distance
from pae_framework.metrics.inception import WeightsIdentity

PART = 5000
"""Images whose features are in memory at once."""


def lacks(inception: WeightsIdentity, weights: str, count: int) -> str | None:
    """Why FDr6 is not available; None if it is.

    Args:
        inception: its weights.
        weights: those of the other networks: ``default``, ``none`` or a folder.
        count: number of samples.
    """
    if count < 2:
        return f"it needs at least 2 samples, not {count}"
    absent = [name for name, network in NETWORKS.items() if network.missing(weights)]
    if not inception.published and weights != RANDOM:
        absent.insert(0, f"{INCEPTION} with the published weights")
    return f"lacks {', '.join(absent)}" if absent else None


def measure_fdr6(
    inputs: EvaluationInputs,
    images: Tensor,
    config: FidelityConfig,
    protocol: Mapping[str, Any],
    subject: Mapping[str, Any],
) -> Iterator[Metric]:
    """FDr6, and the six distances to the training images behind it.

    Args:
        inputs: the training images are the reference.
        images: the samples (M, 3, S, S) uint8.
        config: the weights of the networks; ``fdr6`` is not None.
        protocol: how the samples were made.
        subject: what the samples are.
    """
    assert config.fdr6 is not None
    random = config.fdr6 == RANDOM
    mark, key = (" (random)", "_random") if random else ("", "")
    distances, networks, common = {}, {}, {}
    for name in VALIDATION:
        features = inputs.fdr6_features(name, config.weights if name == INCEPTION else config.fdr6)
        reference = features.reference
        distances[name] = frechet_distance(
            _statistics(images, features, len(reference.mean)), reference
        )
        networks[name] = _network(name, features, len(reference.mean))
        common = {
            **reference.protocol,
            **protocol,
            "covariance": "unbiased, float64",
            "count": len(images),
        }
        yield _metric(
            f"fd_{name.partition('.')[0].lower()}{key}",
            _label(name, random),
            distances[name],
            {**common, **networks[name], "over": VALIDATION[name]},
            subject,
        )
    constants = {"mean_of": "distance / that of ImageNet's validation images", "over": VALIDATION}
    told = {**common, "networks": networks, **constants}
    yield _metric(f"fdr6{key}", f"FDr6{mark}", fdr6(distances), told, subject)


def _label(name: str, random: bool) -> str:
    """With the reference for Inception, whose distance to the test images has a similar label."""
    reference = ", training images" if name == INCEPTION else ""
    return f"FD ({'random ' * random}{name}{reference})"


def _network(name: str, features: FDr6Features, width: int) -> dict[str, Any]:
    """The network in the protocol of its distance."""
    if name == INCEPTION:
        weights = WeightsIdentity(features.digest)
        return {**network_protocol(weights), "features": f"pool_3, {width} wide"}
    network = NETWORKS[name]
    return {
        "extractor": name,
        "extractor_digest": features.digest,
        "timm": version("timm"),
        "resize": f"{network.side} px, bicubic, antialiased",
        "features": f"{network.pool}, {width} wide",
    }


def _metric(
    key: str, label: str, value: float, protocol: Mapping[str, Any], subject: Mapping[str, Any]
) -> Metric:
    return Metric(
        name=f"fidelity/{key}",
        label=label,
        value=value,
        higher_is_better=False,
        at={"convention": "fidelity"},
        subject=subject,
        protocol=protocol,
    )


def _statistics(images: Tensor, features: FDr6Features, width: int) -> FeatureStatistics:
    statistics = FeatureStatistics(width)
    for part in images.split(PART):
        for some in features(part).split(250):
            statistics.update(some)
    return statistics
