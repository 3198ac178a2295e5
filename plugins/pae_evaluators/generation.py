"""How close samples come to the test images as the generator trains."""

from __future__ import annotations

from pathlib import Path

from pae_evaluators.feature_distance import DistanceToTestImages, sampling_protocol
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric


class Generation(Evaluator):
    """Frechet distance of the samples of the last and of earlier weights to the test images."""

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """One metric per set of weights, in the order they were trained."""
        judged = [samples for samples in inputs.sample_sets if samples.role != "few_steps"]
        distance = DistanceToTestImages(inputs)
        return [
            distance.metric(
                "generation",
                "gFD",
                samples.images,
                at={"generator_step": samples.generator_step},
                protocol=sampling_protocol(samples),
            )
            for samples in sorted(judged, key=lambda samples: samples.generator_step)
        ]
