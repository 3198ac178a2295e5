"""Limits of the engine's settings, checked before a run starts."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_cases import Problems

from pae_framework.config import Settings
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.models import Recipe
from pae_framework.training.train_settings import TrainSettings


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("sample.few_steps=[5, 0]", "sample.few_steps[1]", "more than 0"),
        ("sample.few_steps=[5, 3, 5]", "sample.few_steps", "5"),
        ("sample.at_steps=[10, 10]", "sample.at_steps", "10"),
        ("generator.train.keep_steps=[-1]", "generator.train.keep_steps[0]", "more than 0"),
        ("tokenizer.train.keep_steps=[4, 4]", "tokenizer.train.keep_steps", "4"),
        ("sample.count=1", "sample.count", "2 or more"),
        ("tokenizer.train.betas=[0.9, 1]", "tokenizer.train.betas[1]", "less than 1"),
        ("tokenizer.train.betas=[-0.1, 0.9]", "tokenizer.train.betas[0]", "0 or more"),
    ],
)
def test_an_invalid_value_is_reported_at_its_key(
    problems: Problems, override: str, path: str, message: str
) -> None:
    (problem,) = problems(override)
    assert problem.path == path
    assert message in problem.message
    assert problem.where == "command line"


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (SampleSettings, {"few_steps": [1, 2], "at_steps": [2, 1], "count": 2}),
        (TrainSettings, {"steps": 9, "keep_steps": [9, 3], "betas": [0, 0]}),
    ],
)
def test_values_at_the_limits_are_valid(model: type[Settings], values: dict[str, Any]) -> None:
    dumped = model.model_validate(values).model_dump(mode="json")
    assert {key: dumped[key] for key in values} == values


def test_the_description_of_the_seed_refers_to_that_of_sampling() -> None:
    assert "`sample.seed`" in (Recipe.model_fields["seed"].description or "")
    assert "recipe's seed" in (SampleSettings.model_fields["seed"].description or "")
