"""How close samples come to the test images as the solver gets fewer steps."""

from __future__ import annotations

from pathlib import Path

from pae_evaluators.feature_distance import DistanceToTestImages, sampling_protocol
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric


class FewSteps(Evaluator):
    """Frechet distance of samples of the last weights to the test images, by solver steps."""

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """One metric per number of steps, fewest first; the recipe's own number is one of them."""
        judged = [samples for samples in inputs.sample_sets if samples.role != "checkpoint"]
        distance = DistanceToTestImages(inputs)
        return [
            distance.metric(
                "few_steps",
                "gFD",
                samples.images,
                at={"steps": samples.steps, "evaluations": samples.protocol["evaluations"]},
                protocol=sampling_protocol(samples),
            )
            for samples in sorted(judged, key=lambda samples: samples.steps)
        ]
