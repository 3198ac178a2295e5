"""The metrics of samples by the two conventions in use, each with its protocol.

``adm``: the evaluator of guided-diffusion, with which papers on ImageNet report FID, sFID, IS,
precision and recall. ``fidelity``: the usual PyTorch tools, as torch-fidelity defines them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from pae_framework.contracts import Metric
from pae_framework.metrics.features import Reference, SetFeatures
from pae_framework.metrics.frechet import frechet_distance
from pae_framework.metrics.inception import WeightsIdentity
from pae_framework.metrics.inception_score import (
    ADM_BLOCK,
    SPLIT_SEED,
    SPLITS,
    adm_inception_score,
    split_inception_score,
)
from pae_framework.metrics.kernel_distance import (
    SEED,
    SUBSET,
    SUBSETS,
    kernel_distance,
    subset_size,
)
from pae_framework.metrics.neighbors import NEIGHBORS, Distance, exact, half, precision_recall

STATISTICS = "mu and sigma"
SPATIAL_STATISTICS = "mu_s and sigma_s"
IMAGES = "images (arr_0)"
"""Parts of a reference, by the names that they have in ADM's files."""

SORTED_RATIO = 1.1
"""Shuffled images score this many times higher if a file is sorted by class."""


@dataclass(frozen=True)
class Value:
    """A measured value, its standard deviation if known, and its part of the protocol."""

    value: float
    std: float | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)


class Comparison:
    """Samples and a reference; what several metrics need is computed once.

    Args:
        samples: features of the samples.
        reference: may lack parts that no requested metric needs.
        logits: of pooled features.
        device: where distances between single images are computed.
    """

    def __init__(
        self,
        samples: SetFeatures,
        reference: Reference,
        logits: Callable[[Tensor], Tensor],
        device: torch.device | str = "cpu",
    ):
        self.samples, self.reference = samples, reference
        self._compute_logits, self._device = logits, device
        self._precision_recall: dict[Distance, tuple[float, float]] = {}

    @cached_property
    def logits(self) -> Tensor:
        """Logits (M, K) of the samples."""
        return torch.cat([self._compute_logits(some) for some in self.samples.rows.split(1000)])

    def precision_recall(self, distance: Distance) -> tuple[float, float]:
        """Precision and recall with distances computed by a function."""
        if distance not in self._precision_recall:
            rows = self.samples.rows.to(self._device), self.reference_rows.to(self._device)
            self._precision_recall[distance] = precision_recall(*rows, distance)
        return self._precision_recall[distance]

    @property
    def reference_rows(self) -> Tensor:
        """Pooled features of the images of the reference."""
        assert self.reference.rows is not None
        return self.reference.rows

    @property
    def sorted_by_class(self) -> str | None:
        """A warning if the samples seem to be sorted by class, which lowers ADM's IS; or None."""
        in_order = adm_inception_score(self.logits)
        order = torch.randperm(len(self.logits), generator=torch.Generator().manual_seed(0))
        shuffled = adm_inception_score(self.logits[order])
        if shuffled < SORTED_RATIO * in_order:
            return None
        return (
            f"the images seem to be sorted by class: it is {in_order:.4g} in their order and "
            f"{shuffled:.4g} after a shuffle; shuffle them before you report it"
        )


def _distance(comparison: Comparison) -> Value:
    samples, reference = comparison.samples, comparison.reference
    assert reference.pool is not None
    return Value(frechet_distance(samples.pool, reference.pool), None, _frechet(comparison))


def _spatial_distance(comparison: Comparison) -> Value:
    samples, reference = comparison.samples, comparison.reference
    assert reference.spatial is not None
    return Value(frechet_distance(samples.spatial, reference.spatial), None, _frechet(comparison))


def _frechet(comparison: Comparison) -> dict[str, Any]:
    count = comparison.reference.count
    return {
        "covariance": "unbiased, float64",
        "reference_count": "not stated in the file" if count is None else count,
    }


def _adm_score(comparison: Comparison) -> Value:
    protocol = {"blocks": f"{ADM_BLOCK} images in the order of the set, float64"}
    return Value(adm_inception_score(comparison.logits), None, protocol)


def _split_score(comparison: Comparison) -> Value:
    protocol = {"blocks": f"{SPLITS} of shuffled images, seed {SPLIT_SEED}, float64"}
    return Value(*split_inception_score(comparison.logits), protocol)


def _kernel(comparison: Comparison) -> Value:
    rows = comparison.samples.rows, comparison.reference_rows
    protocol = {
        "kernel": "(x y / D + 1)^3, unbiased, float64",
        "subsets": _subsets(*map(len, rows)),
        "reference_count": len(rows[1]),
    }
    return Value(*kernel_distance(*rows), protocol)


def _subsets(count: int, reference_count: int) -> str:
    """The subsets of the kernel distance, and what its deviation is then of."""
    size = subset_size(count, reference_count)
    if count == reference_count == size:
        return f"1 of all {size} images, without a deviation"
    words = f"{SUBSETS} of {size} images, seed {SEED}"
    if size not in (count, reference_count):
        return words
    whole, other = ("samples", "reference") if size == count else ("reference", "samples")
    return f"{words}; all {whole} are in each, so the deviation is that of the {other} only"


_PRECISIONS: dict[Distance, str] = {half: "float16, as on ADM's GPU", exact: "float32"}


def _inside(number: int, distance: Distance, comparison: Comparison) -> Value:
    protocol = {
        "neighbors": NEIGHBORS,
        "distances": f"Euclidean, {_PRECISIONS[distance]}",
        "reference_count": len(comparison.reference_rows),
    }
    return Value(comparison.precision_recall(distance)[number], None, protocol)


@dataclass(frozen=True)
class Quantity:
    """A metric of a convention.

    Args:
        key: part of the metric's name.
        label: what it is called in Inception's features.
        other: key and label in other features.
        features: which features it compares.
        part: the part of the reference that it needs; None: no reference.
        least: fewest images of the samples, and of the reference if it needs images.
        compute: the value.
        higher_is_better: whether a larger value is better.
    """

    key: str
    label: str
    other: tuple[str, str]
    features: str
    part: str | None
    least: int
    compute: Callable[[Comparison], Value]
    higher_is_better: bool = False

    def names(self, weights: WeightsIdentity) -> tuple[str, str]:
        """Key and label with these weights: only the published ones give an FID."""
        if weights.published:
            return self.key, self.label
        key, label = self.other
        return f"{key}_{weights.words.lower().replace(' ', '_')}", f"{label} ({weights.words})"

    def lacking(
        self, missing: Mapping[str, str], count: int, reference_count: int | None
    ) -> str | None:
        """Why it is not available; None if it is.

        Args:
            missing: parts that the reference lacks, and why.
            count: number of samples.
            reference_count: number of the reference's images, if it has any.
        """
        if self.part is not None and self.part in missing:
            return missing[self.part]
        if count < self.least:
            return f"it needs at least {self.least} samples, not {count}"
        if self.part == IMAGES and reference_count is not None and reference_count < self.least:
            return f"it needs at least {self.least} images in the reference, not {reference_count}"
        return None


_POOL, _SPATIAL, _LOGITS = (
    "pool_3, 2048 wide",
    "7 channels of mixed_6/conv at 17 x 17 places, 2023 wide",
    "softmax of 1008 logits without bias",
)


def _of_neighbors(distance: Distance) -> tuple[Quantity, Quantity]:
    return tuple(
        Quantity(
            label.lower(),
            label,
            (label.lower(), label),
            _POOL,
            IMAGES,
            NEIGHBORS + 1,
            partial(_inside, number, distance),
            higher_is_better=True,
        )
        for number, label in enumerate(("Precision", "Recall"))
    )  # type: ignore[return-value]


_FID = Quantity("fid", "FID", ("fd", "FD"), _POOL, STATISTICS, 2, _distance)
_SFID = Quantity("sfid", "sFID", ("sfd", "sFD"), _SPATIAL, SPATIAL_STATISTICS, 2, _spatial_distance)
_KID = Quantity("kid", "KID", ("kd", "KD"), _POOL, IMAGES, 2, _kernel)


def _score(least: int, compute: Callable[[Comparison], Value]) -> Quantity:
    return Quantity("is", "IS", ("is", "IS"), _LOGITS, None, least, compute, higher_is_better=True)


CONVENTIONS: dict[str, tuple[Quantity, ...]] = {
    "adm": (_score(1, _adm_score), _FID, _SFID, *_of_neighbors(half)),
    "fidelity": (_FID, _KID, _score(SPLITS, _split_score), *_of_neighbors(exact)),
}
"""The metrics of each convention, in the order in which its tool prints them."""

_FOLLOWS = {
    "adm": "the ADM evaluator (guided-diffusion 22e0df8)",
    "fidelity": "torch-fidelity 0.4.0",
}


def split_available(
    convention: str, missing: Mapping[str, str], count: int, reference_count: int | None
) -> tuple[list[Quantity], dict[str, str]]:
    """The metrics that can be computed, and by label why the others are not available.

    Arguments as in :meth:`Quantity.lacking`.
    """
    there: list[Quantity] = []
    reasons: dict[str, str] = {}
    for quantity in CONVENTIONS[convention]:
        if (reason := quantity.lacking(missing, count, reference_count)) is None:
            there.append(quantity)
        else:
            reasons[quantity.label] = reason
    return there, reasons


def measure(
    convention: str,
    quantities: list[Quantity],
    comparison: Comparison,
    weights: WeightsIdentity,
    protocol: Mapping[str, Any],
    subject: Mapping[str, Any],
) -> Iterator[Metric]:
    """Compute metrics, one after the other.

    Args:
        convention: ``adm`` or ``fidelity``.
        quantities: of this convention; the reference has what they need.
        comparison: the samples and the reference.
        weights: of the network.
        protocol: how the samples were made. It overrides what the reference's protocol states
            under the same keys.
        subject: what the samples are.
    """
    tool = f"as {_FOLLOWS[convention]}"
    common = {"tool": tool, **protocol, **network_protocol(weights)}
    for quantity in quantities:
        found = quantity.compute(comparison)
        key, label = quantity.names(weights)
        reference = {} if quantity.part is None else dict(comparison.reference.protocol)
        yield Metric(
            name=f"{convention}/{key}",
            label=label,
            value=found.value,
            std=found.std,
            higher_is_better=quantity.higher_is_better,
            at={"convention": convention},
            subject=subject,
            protocol={
                **reference,
                **common,
                "features": quantity.features,
                "count": len(comparison.samples.rows),
                **found.protocol,
            },
        )


def network_protocol(weights: WeightsIdentity) -> dict[str, Any]:
    """The network in the protocol of metrics and references."""
    return {
        "extractor": f"{weights.words} (2015-12-05, torch-fidelity {version('torch-fidelity')})",
        "extractor_sha256": weights.sha256,
        "resize": "299 px, bilinear as in TensorFlow 1",
    }


def cautions(
    quantities: list[Quantity], comparison: Comparison, weights: WeightsIdentity
) -> Iterator[str]:
    """What a reader of the values must know."""
    for quantity in quantities:
        if (caution := _caution(quantity, comparison)) is not None:
            yield f"{quantity.names(weights)[1]}: {caution}"


def _caution(quantity: Quantity, comparison: Comparison) -> str | None:
    samples = comparison.samples
    if quantity.compute in (_distance, _spatial_distance):
        statistics = samples.pool if quantity.compute is _distance else samples.spatial
        fewest = min(statistics.count, comparison.reference.count or statistics.count)
        if fewest <= statistics.width:
            return (
                f"{fewest} images are no more than the {statistics.width} features; the "
                "value is defined, but depends strongly on the number of images"
            )
    if quantity.compute is _adm_score:
        return comparison.sorted_by_class
    if quantity.compute is _kernel:
        counts = len(samples.rows), len(comparison.reference_rows)
        if min(counts) <= SUBSET:
            return f"a set has no more than {SUBSET} images: subsets are {_subsets(*counts)}"
    return None
