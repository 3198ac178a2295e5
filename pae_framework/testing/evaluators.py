"""The contract of evaluators."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch

from pae_framework.config import EVALUATION_NEEDS, EvaluatorConfig
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric
from pae_framework.testing.evaluation_inputs import SyntheticInputs
from pae_framework.testing.expect import expect, global_randomness_untouched

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_evaluator(evaluator: Evaluator, inputs: EvaluationInputs | None = None) -> None:
    """Check an evaluator on made-up inputs, or on ``inputs`` where that does not suit it.

    It asks only for what ``config.needs`` names; gives metrics with names ``group/metric``, finite
    values and a protocol that JSON can hold, no two for the same thing; gives the same ones again;
    and leaves the inputs, which the next evaluator gets too, as it was.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(evaluator, Evaluator), f"{evaluator!r} is no contracts.Evaluator")
    config = evaluator.config
    expect(isinstance(config, EvaluatorConfig), "the evaluator keeps no EvaluatorConfig")
    unknown = sorted(config.needs - EVALUATION_NEEDS)
    expect(not unknown, f"config.needs names {unknown}; there is {sorted(EVALUATION_NEEDS)}")
    inputs = SyntheticInputs(config.needs) if inputs is None else inputs
    images, labels = inputs.images.clone(), inputs.labels.clone()
    metrics = _evaluate(evaluator, inputs)
    for metric in metrics:
        _check_metric(metric)
    _check_apart(metrics)
    expect(_evaluate(evaluator, inputs) == metrics, "the same inputs gives other metrics")
    same = torch.equal(inputs.images, images) and torch.equal(inputs.labels, labels)
    expect(same, "the evaluator changed the inputs in place; the next one gets it too")


def _evaluate(evaluator: Evaluator, inputs: EvaluationInputs) -> list[Metric]:
    with tempfile.TemporaryDirectory() as folder, global_randomness_untouched("the evaluator"):
        metrics = evaluator.evaluate(inputs, Path(folder))
    expect(isinstance(metrics, list) and bool(metrics), "evaluate gives no list of metrics")
    return metrics


def _check_metric(metric: object) -> None:
    expect(isinstance(metric, Metric), f"{metric!r} is no pae_framework.contracts.Metric")
    assert isinstance(metric, Metric)
    name = metric.name
    expect(bool(_NAME.fullmatch(name)), f"the metric is called {name!r}, not `group/metric`")
    expect(bool(metric.label.strip()), f"{name} has no label, which heads its column")
    expect(type(metric.value) is float, f"{name} is {metric.value!r}, not a float")
    expect(math.isfinite(metric.value), f"{name} is {metric.value}; leave out what has no value")
    expect(
        metric.std is None or (math.isfinite(metric.std) and metric.std >= 0),
        f"{name} has the standard deviation {metric.std}",
    )
    expect(bool(metric.protocol), f"{name} has no protocol: what was measured on what, and how")
    try:
        json.dumps(asdict(metric), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name} cannot be written as JSON: {error}") from error


def _check_apart(metrics: list[Metric]) -> None:
    keys = Counter(
        f"{metric.name} at {json.dumps(dict(metric.at), sort_keys=True)}" for metric in metrics
    )
    twice = [key for key, count in keys.items() if count > 1]
    expect(not twice, f"more than one metric for {', '.join(twice)}; tell them apart by `at`")
