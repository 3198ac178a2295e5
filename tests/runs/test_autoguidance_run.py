"""A run that is to guide another is looked at before anything starts."""

from __future__ import annotations

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
    """Leave, as the run ``weak``, what a finished run of the tiny recipe would."""
    monkeypatch.chdir(tiny_recipe.parent)

    def weak(*overrides: str, weights: bool = True) -> None:
        loaded = load_recipe(tiny_recipe, overrides, REGISTRY)
        Path("weak/generator").mkdir(parents=True)
        Path("weak/resolved.yaml").write_text(loaded.resolved_yaml(), encoding="utf-8")
        if weights:
            generator_weights("weak").touch()

    return weak


def fault(recipe: Path, *overrides: str) -> str:
    loaded = load_recipe(recipe, [*GUIDED, *overrides], REGISTRY)
    return autoguidance_problem(loaded.recipe, REGISTRY) or ""


def test_a_run_over_the_same_latents_may_guide(weak, tiny_recipe: Path) -> None:
    weak("generator.depth=2", "generator.classes=10")
    assert fault(tiny_recipe) == ""


def test_without_autoguidance_there_is_nothing_to_find(tiny_recipe: Path) -> None:
    assert autoguidance_problem(load_recipe(tiny_recipe, (), REGISTRY).recipe, REGISTRY) is None


def test_it_must_be_there_and_finished(weak, tiny_recipe: Path) -> None:
    weak(weights=False)
    assert fault(tiny_recipe).startswith("autoguidance: weak holds no finished generator")
    generator_weights("weak").touch()
    Path("weak/resolved.yaml").unlink()
    assert fault(tiny_recipe) == "autoguidance: weak is no run: it has no resolved.yaml"


def test_its_recipe_must_load(weak, tiny_recipe: Path) -> None:
    weak()
    Path("weak/resolved.yaml").write_text("pae: 2", encoding="utf-8")
    assert "autoguidance: the recipe of weak does not load" in fault(tiny_recipe)


def test_latents_of_another_shape_are_refused(weak, tiny_recipe: Path) -> None:
    weak("tokenizer.bottleneck.channels=6")
    assert "works on latents of 6 x 4 x 4, this run's are 4 x 4 x 4" in fault(tiny_recipe)


def test_another_number_of_classes_is_refused(weak, tiny_recipe: Path) -> None:
    weak("data.train=shapes", "evaluate.generation=null")
    assert "knows 8 classes, this run's data have 10" in fault(tiny_recipe)


def test_a_network_without_labels_guides_any_classes(weak, tiny_recipe: Path) -> None:
    weak("data.train=shapes", "generator.classes=0", "sample.guidance.scale=1")
    assert fault(tiny_recipe) == ""


def test_a_check_says_so_where_samples_are_still_to_be_drawn(weak, tiny_recipe: Path) -> None:
    weak("tokenizer.bottleneck.channels=6")
    loaded = load_recipe(tiny_recipe, GUIDED, REGISTRY)
    (problem,) = missing_requirements([loaded])
    assert (problem.path, problem.where) == ("sample.guidance.autoguidance", "command line")
    assert "6 x 4 x 4" in problem.message
