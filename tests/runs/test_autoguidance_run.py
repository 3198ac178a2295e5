"""Checks of the run named for autoguidance."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pae_framework.plugins import load_registry
from pae_framework.preflight.requirements import missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.stage_table import generator_weights
from pae_framework.runs.autoguidance_run import autoguidance_problem

REGISTRY = load_registry()
GUIDED = ("sample.guidance.scale=2", "sample.guidance.autoguidance=weak")


@pytest.fixture
def weak(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    """Creates the files of a finished run of the tiny recipe in the folder ``weak``."""
    monkeypatch.chdir(tiny_recipe.parent)

    def weak(*overrides: str, weights: bool = True) -> None:
        loaded = load_recipe(tiny_recipe, overrides, REGISTRY)
        Path("weak/generator").mkdir(parents=True)
        Path("weak/resolved.yaml").write_text(loaded.resolved_yaml(), encoding="utf-8")
        if weights:
            generator_weights("weak").touch()

    return weak


def problem_of(recipe: Path, *overrides: str) -> str:
    loaded = load_recipe(recipe, [*GUIDED, *overrides], REGISTRY)
    return autoguidance_problem(loaded.recipe, REGISTRY) or ""


def test_a_run_on_the_same_latents_is_valid(weak, tiny_recipe: Path) -> None:
    weak("generator.depth=2", "generator.classes=10")
    assert problem_of(tiny_recipe) == ""


def test_without_autoguidance_there_is_no_problem(tiny_recipe: Path) -> None:
    assert autoguidance_problem(load_recipe(tiny_recipe, (), REGISTRY).recipe, REGISTRY) is None


def test_the_run_must_exist_and_be_finished(weak, tiny_recipe: Path) -> None:
    weak(weights=False)
    assert str(generator_weights("weak")) in problem_of(tiny_recipe)
    generator_weights("weak").touch()
    Path("weak/resolved.yaml").unlink()
    assert "weak" in problem_of(tiny_recipe)
    assert "resolved.yaml" in problem_of(tiny_recipe)


def test_the_recipe_of_the_run_must_load(weak, tiny_recipe: Path) -> None:
    weak()
    Path("weak/resolved.yaml").write_text("pae: 2", encoding="utf-8")
    assert "recipe of weak" in problem_of(tiny_recipe)


def test_latents_must_have_the_same_shape(weak, tiny_recipe: Path) -> None:
    weak("tokenizer.bottleneck.channels=6")
    assert re.search("weak.* 6 x 4 x 4.* 4 x 4 x 4", problem_of(tiny_recipe))


def test_the_number_of_classes_must_be_the_same(weak, tiny_recipe: Path) -> None:
    weak("data.train=shapes", "evaluate.generation=null")
    assert re.search("weak.* 8 classes.* 10", problem_of(tiny_recipe))


def test_an_unconditional_generator_may_have_other_classes(weak, tiny_recipe: Path) -> None:
    weak("data.train=shapes", "generator.classes=0", "sample.guidance.scale=1")
    assert problem_of(tiny_recipe) == ""


def test_the_problem_is_reported_if_samples_are_missing(weak, tiny_recipe: Path) -> None:
    weak("tokenizer.bottleneck.channels=6")
    loaded = load_recipe(tiny_recipe, GUIDED, REGISTRY)
    (problem,) = missing_requirements([loaded])
    assert (problem.path, problem.where) == ("sample.guidance.autoguidance", "command line")
    assert "6 x 4 x 4" in problem.message
