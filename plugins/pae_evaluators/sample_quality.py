"""How close samples come to real images: as the generator trains, and with fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pae_evaluators.config import FewStepsConfig, GenerationConfig
from pae_evaluators.feature_distance import DistanceToTestImages, FeatureDistance
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric, SampleSet


class Generation(Evaluator):
    """Frechet distance of the samples of the last and of earlier weights to real images."""

    config: GenerationConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """One metric per set of weights, in the order of their training steps.

        Those of ``sample.convergence`` have ``protocol: convergence`` in their ``at``, those of
        ``sample.variants`` have ``samples: LABEL``.
        """
        sets = of_roles(inputs, "main", "checkpoint", "convergence", "variant")

        def at(samples: SampleSet) -> dict[str, Any]:
            return {"generator_step": samples.generator_step, **kind_of(samples)}

        return _distances(inputs, self.config, "generation", sets, at)


class FewSteps(Evaluator):
    """Frechet distance of samples of the last weights to real images, by solver and steps."""

    config: FewStepsConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """One metric per number of steps, fewest first; the recipe's own number is one of them."""
        sets = of_roles(inputs, "main", "few_steps")
        several = len({samples.protocol.get("solver") for samples in sets}) > 1

        def at(samples: SampleSet) -> dict[str, Any]:
            solver = {"solver": samples.protocol["solver"]} if several else {}
            return {
                "steps": samples.steps,
                "evaluations": samples.protocol["evaluations"],
                **solver,
            }

        return _distances(inputs, self.config, "few_steps", sets, at)


def of_roles(inputs: EvaluationInputs, *roles: str) -> list[SampleSet]:
    """The sample sets with these roles."""
    return [samples for samples in inputs.sample_sets if samples.role in roles]


def kind_of(samples: SampleSet) -> dict[str, Any]:
    """In ``at``: what tells sets of ``convergence`` and of ``variants`` from the others."""
    if samples.variant is not None:
        return {"samples": samples.variant}
    return {"protocol": samples.role} if samples.role == "convergence" else {}


def _distances(
    inputs: EvaluationInputs,
    config: GenerationConfig,
    group: str,
    sets: Sequence[SampleSet],
    at: Callable[[SampleSet], Mapping[str, Any]],
) -> list[Metric]:
    """One metric for each sample set, in the order of the first value of ``at``."""
    distance = (
        DistanceToTestImages(inputs)
        if config.reference == "test"
        else FeatureDistance(inputs, inputs.training_reference)
    )
    return [
        distance.metric(
            group,
            "gFD",
            samples.images,
            subject={**inputs.protocol_of("generator"), **samples.origin},
            at=at(samples),
            protocol=samples.sampling,
        )
        for samples in sorted(sets, key=lambda samples: next(iter(at(samples).values())))
    ]
