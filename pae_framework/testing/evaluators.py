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
    for metric in metrics:
        _check_metric(metric)
    _check_apart(metrics)
    expect(_evaluate(evaluator, inputs) == metrics, "the same inputs must give the same metrics")
    same = torch.equal(inputs.images, images) and torch.equal(inputs.labels, labels)
    expect(same, "the evaluator changed its inputs in place; the next evaluator gets them too")


def _evaluate(evaluator: Evaluator, inputs: EvaluationInputs) -> list[Metric]:
    with tempfile.TemporaryDirectory() as folder, global_randomness_untouched("the evaluator"):
        metrics = evaluator.evaluate(inputs, Path(folder))
    expect(isinstance(metrics, list) and bool(metrics), "evaluate must give a list of metrics")
    return metrics


def _check_metric(metric: object) -> None:
    expect(isinstance(metric, Metric), f"{metric!r} is no contracts.Metric")
    assert isinstance(metric, Metric)
    name = metric.name
    expect(bool(_NAME.fullmatch(name)), f"the name of the metric is {name!r}, not `group/metric`")
    expect(bool(metric.label.strip()), f"{name} has no label, the heading of its column")
    expect(type(metric.value) is float, f"{name} is {metric.value!r}, not a float")
    expect(
        math.isfinite(metric.value), f"{name} is {metric.value}; leave out metrics without a value"
    )
    expect(
        metric.std is None or (math.isfinite(metric.std) and metric.std >= 0),
        f"{name} has the standard deviation {metric.std}",
    )
    expect(bool(metric.protocol), f"{name} has no protocol, which says what was measured and how")
    try:
        json.dumps(asdict(metric), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name} cannot be written as JSON: {error}") from error


def _check_apart(metrics: list[Metric]) -> None:
    keys = Counter(
        f"{metric.name} at {json.dumps(dict(metric.at), sort_keys=True)}" for metric in metrics
    )
    twice = [key for key, count in keys.items() if count > 1]
    expect(not twice, f"more than one metric for {', '.join(twice)}; distinguish them by `at`")
