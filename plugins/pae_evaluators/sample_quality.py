"""How close samples come to real images: as the generator trains, and with fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pae_evaluators.config import FewStepsConfig, GenerationConfig
from pae_evaluators.feature_distance import DistanceToTestImages, FeatureDistance
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric, SampleSet


class Generation(Evaluator):
    """Frechet distance of the samples of the last and of earlier weights to real images."""

    config: GenerationConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """One metric per set of weights, in the order of their training steps."""
        return _distances(
            inputs,
            self.config,
            "generation",
            "few_steps",
            lambda samples: {"generator_step": samples.generator_step},
        )


class FewSteps(Evaluator):
    """Frechet distance of samples of the last weights to real images, by solver steps."""

    config: FewStepsConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """One metric per number of steps, fewest first; the recipe's own number is one of them."""
        return _distances(
            inputs,
            self.config,
            "few_steps",
            "checkpoint",
            lambda samples: {
                "steps": samples.steps,
                "evaluations": samples.protocol["evaluations"],
            },
        )


def _distances(
    inputs: EvaluationInputs,
    config: GenerationConfig,
    group: str,
    other_role: str,
    at: Callable[[SampleSet], Mapping[str, Any]],
) -> list[Metric]:
    """One metric for each sample set, without those of ``other_role``, in the order of ``at``."""
    distance = (
        DistanceToTestImages(inputs)
        if config.reference == "test"
        else FeatureDistance(inputs, inputs.training_reference)
    )
    sets = [samples for samples in inputs.sample_sets if samples.role != other_role]
    return [
        distance.metric(
            group, "gFD", samples.images, at=at(samples), protocol=_sampling_protocol(samples)
        )
        for samples in sorted(sets, key=lambda samples: next(iter(at(samples).values())))
    ]


def _sampling_protocol(samples: SampleSet) -> dict[str, Any]:
    return {
        **samples.protocol,
        "role": samples.role,
        "generator_step": samples.generator_step,
        "steps": samples.steps,
    }
