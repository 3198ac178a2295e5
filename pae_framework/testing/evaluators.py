"""The contract of evaluators."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from pae_framework.config import EVALUATION_NEEDS, EvaluatorConfig
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric
from pae_framework.promises import metrics_problem
from pae_framework.testing.evaluation_inputs import SyntheticInputs
from pae_framework.testing.expect import expect, expect_none, global_randomness_untouched


def check_evaluator(evaluator: Evaluator, inputs: EvaluationInputs | None = None) -> None:
    """Check an evaluator on ``inputs``; None: :class:`SyntheticInputs`.

    It uses only the inputs that ``config.needs`` names and does not change them. Metrics are named
    ``group/metric`` and have finite values and a protocol that can be written as JSON. No two
    measure the same. A second evaluation gives the same metrics.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(evaluator, Evaluator), f"{evaluator!r} is no contracts.Evaluator")
    config = evaluator.config
    expect(isinstance(config, EvaluatorConfig), "evaluator.config must be an EvaluatorConfig")
    unknown = sorted(config.needs - EVALUATION_NEEDS)
    expect(not unknown, f"config.needs names {unknown}; known are {sorted(EVALUATION_NEEDS)}")
    inputs = SyntheticInputs(config.needs) if inputs is None else inputs
    images, labels = inputs.images.clone(), inputs.labels.clone()
    metrics = _evaluate(evaluator, inputs)
    expect(_evaluate(evaluator, inputs) == metrics, "the same inputs must give the same metrics")
    same = torch.equal(inputs.images, images) and torch.equal(inputs.labels, labels)
    expect(same, "the evaluator changed its inputs in place; the next evaluator gets them too")


def _evaluate(evaluator: Evaluator, inputs: EvaluationInputs) -> list[Metric]:
    with tempfile.TemporaryDirectory() as folder, global_randomness_untouched("the evaluator"):
        metrics = evaluator.evaluate(inputs, Path(folder))
    expect_none(metrics_problem(metrics))
    return metrics
