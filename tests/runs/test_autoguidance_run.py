"""Checks of the run or file named for autoguidance."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.preflight.requirements import missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.stage_table import STAGES, generator_weights
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


# --- a file of weights --------------------------------------------------------------------------


@pytest.fixture
def file(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_recipe.parent)
    path = Path("weak").absolute()
    path.write_bytes(b"weights")
    return path


GUIDE = (
    "guide={use: dit_dh, depth: 1, width: 32, heads: 2, "
    "head_depth: 1, head_width: 32, head_heads: 2}"
)


@pytest.mark.usefixtures("file")
def test_a_file_needs_the_network_in_guide(tiny_recipe: Path) -> None:
    problem = problem_of(tiny_recipe)
    assert "weak" in problem
    assert "set for example guide=" in problem
    assert problem_of(tiny_recipe, GUIDE) == ""


@pytest.mark.usefixtures("file")
def test_the_guide_must_have_as_many_classes(tiny_recipe: Path) -> None:
    assert re.search("7 classes.* 10", problem_of(tiny_recipe, GUIDE, "guide.classes=7"))
    assert problem_of(tiny_recipe, GUIDE, "guide.classes=10") == ""


@pytest.mark.parametrize("guide", [(), (GUIDE,)])
def test_what_does_not_exist_is_neither_run_nor_file(
    tiny_recipe: Path, guide: tuple[str, ...]
) -> None:
    assert "weak" in problem_of(tiny_recipe, *guide)


def test_the_guide_must_fit_the_latents(tiny_recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"guide: .*4 x 4 x 4"):
        load_recipe(tiny_recipe, [GUIDE, "guide.patch=3"], REGISTRY)


def hashed(recipe: Path, *overrides: str) -> dict[str, object]:
    return STAGES["sample"].hashed_values(load_recipe(recipe, overrides, REGISTRY).recipe)


def test_contents_of_the_file_and_its_network_count(file: Path, tiny_recipe: Path) -> None:
    first = hashed(tiny_recipe, *GUIDED, GUIDE)
    other_network = hashed(tiny_recipe, *GUIDED, GUIDE, "guide.head_depth=2")
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    elsewhere = hashed(tiny_recipe, GUIDED[0], f"sample.guidance.autoguidance={copy}", GUIDE)
    file.write_bytes(b"others")
    other_weights = hashed(tiny_recipe, *GUIDED, GUIDE)
    assert elsewhere == first
    assert first["guide"] != other_network["guide"]
    assert first["autoguidance"] != other_weights["autoguidance"]


def test_a_guide_without_a_file_does_not_count(weak, tiny_recipe: Path) -> None:
    assert hashed(tiny_recipe, GUIDE) == hashed(tiny_recipe)
    weak()
    assert hashed(tiny_recipe, *GUIDED, GUIDE) == hashed(tiny_recipe, *GUIDED)


def test_files_of_the_guides_network_are_needed_to_sample(file: Path, tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, [*GUIDED, GUIDE], REGISTRY).recipe
    assert STAGES["sample"].needs(("guide",), recipe)
    file.unlink()
    assert not STAGES["sample"].needs(("guide",), recipe)
