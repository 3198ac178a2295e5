"""A number may stand for a map, and shares for steps; both mean the same as the long form."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.json_schema import recipe_schema
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.plan import plan

REGISTRY = load_registry()
SHORT_AND_LONG = {
    "regularizer": (
        "tokenizer: {regularizers: {mcr: 0.5}}",
        "tokenizer: {regularizers: {mcr: {weight: 0.5}}}",
    ),
    "reconstruction term": (
        "tokenizer: {reconstruction: {perceptual: 2.0}}",
        "tokenizer: {reconstruction: {perceptual: {weight: 2.0}}}",
    ),
    "guidance": ("sample: {guidance: 2.0}", "sample: {guidance: {scale: 2.0}}"),
    "kept steps": (
        "sample: {at_steps: []}\ngenerator: {train: {steps: 300, keep_steps: [50%, 12.5%]}}",
        "sample: {at_steps: []}\ngenerator: {train: {steps: 300, keep_steps: [150, 38]}}",
    ),
    "kept steps of an encoder": (
        "tokenizer: {encoder: {train: {steps: 30, keep_steps: [1%]}}}",
        "tokenizer: {encoder: {train: {steps: 30, keep_steps: [1]}}}",
    ),
    "sampled steps": (
        "generator: {train: {steps: 300, keep_steps: [50%]}}\nsample: {at_steps: [50%, 300]}",
        "generator: {train: {steps: 300, keep_steps: [150]}}\nsample: {at_steps: [150, 300]}",
    ),
}
each = pytest.mark.parametrize(
    ("short", "long"), SHORT_AND_LONG.values(), ids=SHORT_AND_LONG.keys()
)


def fingerprints(text: str, folder: Path, *overrides: str) -> dict[str, str]:
    file = folder / "mine.yaml"
    file.write_text(f"pae: 1\nextends: quickstart\nname: mine\n{text}\n", encoding="utf-8")
    loaded = load_recipe(file, overrides, REGISTRY)
    return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, REGISTRY)}


@each
def test_the_short_form_has_the_fingerprints_of_the_long_form(
    short: str, long: str, tmp_path: Path
) -> None:
    assert fingerprints(short, tmp_path) == fingerprints(long, tmp_path)


@each
def test_the_schema_for_editors_knows_the_short_form(short: str, long: str) -> None:
    validator = jsonschema.Draft7Validator(recipe_schema(REGISTRY))
    for text in (short, long):
        assert not list(validator.iter_errors(yaml.safe_load(text)))


def test_a_number_keeps_the_other_keys_of_the_map(tmp_path: Path) -> None:
    guided = "sample: {guidance: {scale: 3.0, interval: [0.1, 1.0]}}"
    (tmp_path / "base.yaml").write_text(f"pae: 1\nextends: quickstart\nname: base\n{guided}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nname: mine\nsample: {guidance: 2}\n")
    by_file = load_recipe(tmp_path / "mine.yaml", (), REGISTRY).recipe.sample
    by_option = load_recipe(tmp_path / "base.yaml", ["sample.guidance=2"], REGISTRY).recipe.sample
    for sample in (by_file, by_option):
        assert sample is not None
        assert (sample.guidance.scale, sample.guidance.interval) == (2, (0.1, 1.0))


def test_a_later_number_of_steps_counts(tmp_path: Path) -> None:
    text = "sample: {at_steps: []}\ngenerator: {train: {steps: 300, keep_steps: [50%]}}"
    long = "sample: {at_steps: []}\ngenerator: {train: {steps: 100, keep_steps: [50]}}"
    steps = "generator.train.steps=100"
    assert fingerprints(text, tmp_path, steps) == fingerprints(long, tmp_path)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("tokenizer.regularizers.mcr=true", "tokenizer.regularizers.mcr"),
        ("tokenizer.regularizers.mcr=-1", "tokenizer.regularizers.mcr.weight"),
        ("sample.guidance=0.5", "sample.guidance.scale"),
        ("sample.guidance=strong", "sample.guidance"),
        ("generator=3", "generator"),
        ("generator.train.keep_steps=[200%]", "generator.train.keep_steps"),
        ("generator.train.keep_steps=[half]", "generator.train.keep_steps[0]"),
        ("generator.train.keep_steps=[-5%]", "generator.train.keep_steps[0]"),
    ],
)
def test_what_is_no_shorthand_is_one_problem_at_its_key(value: str, path: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", [value, "sample.at_steps=[]"], REGISTRY)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_a_share_needs_written_steps(tmp_path: Path) -> None:
    text = "generator: {train: {steps: null, epochs: 2, keep_steps: [50%]}}"
    with pytest.raises(RecipeError, match="keep_steps"):
        fingerprints(text, tmp_path)


def test_a_remedy_for_an_inherited_value_names_the_users_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: quickstart\nname: mine\ndata: {image_size: 30}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, (), REGISTRY)
    inherited = [x for x in caught.value.problems if "quickstart.yaml" in x.where]
    assert inherited
    assert all(str(file) in x.hint for x in inherited if "set " in x.hint)
