"""Samples compared with a reference in Inception features, by the conventions in use."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from pae_evaluators.config import FidelityConfig, InceptionMetricsConfig
from pae_evaluators.fdr6 import lacks, measure_fdr6
from pae_evaluators.sample_quality import kind_of, of_roles
from pae_framework.contracts import (
    EvaluationInputs,
    Evaluator,
    InceptionNetwork,
    Metric,
    SampleSet,
)
from pae_framework.data.npz import NpzImages
from pae_framework.data.pixels import UINT8
from pae_framework.metrics.conventions import Comparison, cautions, measure, split_available
from pae_framework.metrics.feature_statistics import PART
from pae_framework.metrics.features import InceptionFeatures, Reference, SetFeatures, collect
from pae_framework.metrics.inception import WeightsIdentity
from pae_framework.metrics.reference_files import ReferenceFile, missing_of_images

_READ = 500
"""Images of a reference file that are in memory at once."""

logger = logging.getLogger(__name__)

Parts = frozenset[str | None]
References = dict[Parts, Reference]


class InceptionMetrics(Evaluator):
    """Metrics of the samples of the last weights, of ``sample.convergence`` and of
    ``sample.variants``."""

    convention: ClassVar[str]
    config: InceptionMetricsConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the metrics that the reference and the number of images allow."""
        references: References = {}
        return [
            replace(metric, at={**metric.at, **_at(samples)})
            for samples in of_roles(inputs, "main", "convergence", "variant")
            for metric in self._measure(samples, inputs, references)
        ]

    def _measure(
        self, samples: SampleSet, inputs: EvaluationInputs, references: References
    ) -> list[Metric]:
        """Metrics of one set. ``references`` holds what is compared with, by its parts."""
        network = inputs.inception(self.config.weights)
        weights, images = WeightsIdentity(network.sha256), samples.images
        file = self._reference_file(images)
        missing = missing_of_images(len(inputs.images)) if file is None else file.missing(weights)
        stored = inputs.images if file is None else file.images
        count = None if stored is None else len(stored)
        quantities, reasons = split_available(self.convention, missing, len(images), count)
        for label, reason in reasons.items():
            self._tell_not_available(label, reason, samples)
        parts = frozenset(quantity.part for quantity in quantities)
        if parts not in references:
            references[parts] = _reference(file, parts, inputs, network)
        reference = references[parts]
        comparison = Comparison(_of_tensor(images, network), reference, network.logits)
        for caution in cautions(quantities, comparison, weights):
            self._tell(caution, samples)
        height, width = images.shape[2:]
        protocol = {
            "image_size": f"{height} x {width}",
            "crop": "none",
            "uint8": UINT8,
            **samples.sampling,
        }
        subject = {**inputs.protocol_of("generator"), **samples.origin}
        of_convention = (self.convention, quantities, comparison, weights, protocol, subject)
        more = self._more(samples, inputs, weights, protocol, subject)
        return [*measure(*of_convention), *more]

    def _tell_not_available(self, label: str, reason: str, samples: SampleSet) -> None:
        logger.warning("%s: not available: %s", label, reason)
        self.notes.not_available[label + _of_other_than_main(samples)] = reason

    def _tell(self, caution: str, samples: SampleSet) -> None:
        logger.warning("%s", caution)
        self.notes.cautions.append(caution + _of_other_than_main(samples))

    def _more(
        self,
        samples: SampleSet,
        inputs: EvaluationInputs,
        weights: WeightsIdentity,
        protocol: Mapping[str, Any],
        subject: Mapping[str, Any],
    ) -> Iterable[Metric]:
        """Metrics in other features."""
        return ()

    def _reference_file(self, images: Tensor) -> ReferenceFile | None:
        if (path := self.config.reference_file) is None:
            return None
        file = ReferenceFile(path)
        file.require_size((images.shape[2], images.shape[3]), "samples")
        return file


class ADM(InceptionMetrics):
    """IS, FID, sFID, precision and recall as the ADM evaluator defines them."""

    convention = "adm"


class Fidelity(InceptionMetrics):
    """FID, KID, IS, precision and recall as torch-fidelity defines them."""

    convention = "fidelity"
    config: FidelityConfig

    def _more(
        self,
        samples: SampleSet,
        inputs: EvaluationInputs,
        weights: WeightsIdentity,
        protocol: Mapping[str, Any],
        subject: Mapping[str, Any],
    ) -> Iterable[Metric]:
        """FDr6 of the samples of the last weights, if it is asked for and available."""
        if self.config.fdr6 is None or samples.role == "convergence":
            return ()
        reason = lacks(weights, self.config.fdr6, len(samples.images))
        if reason is not None:
            self._tell_not_available("FDr6", reason, samples)
            return ()
        return measure_fdr6(inputs, samples.images, self.config, protocol, subject)


def _at(samples: SampleSet) -> dict[str, Any]:
    """What varies between the sets: the generator step if they are those of ``convergence``."""
    step = {"generator_step": samples.generator_step}
    return (step if samples.role == "convergence" else {}) | kind_of(samples)


def _of_other_than_main(samples: SampleSet) -> str:
    """Which samples a note is about, unless they are those of the last weights."""
    if samples.role == "main":
        return ""
    if samples.variant is not None:
        return f" ({samples.variant} samples)"
    return f" ({samples.role}, generator step {samples.generator_step})"


def _reference(
    file: ReferenceFile | None,
    parts: Parts,
    inputs: EvaluationInputs,
    network: InceptionNetwork,
) -> Reference:
    if file is None:
        told = {"reference": "test images", **inputs.protocol_of("test_images")}
        return Reference.of_images(_of_tensor(inputs.images, network), told)
    return file.load(parts, network.widths, lambda npz: _of_file(npz, network))


def _of_tensor(images: Tensor, network: InceptionNetwork) -> SetFeatures:
    return collect((InceptionFeatures(*network(part)) for part in images.split(PART)), len(images))


def _of_file(images: NpzImages, network: InceptionNetwork) -> SetFeatures:
    def parts() -> Iterator[InceptionFeatures]:
        for start in range(0, len(images), _READ):
            batch = images.read(range(start, min(start + _READ, len(images))))
            yield InceptionFeatures(*network(batch))

    return collect(parts(), len(images))
