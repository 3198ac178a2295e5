"""What a recipe's components do not find on this machine is said before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from recipe_cases import SMALL, Load

from pae_framework.config import EncoderConfig, RegularizerConfig
from pae_framework.plugins import ComponentSpec, Plugin, Registry, load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.needs import missing_here

FOLDER = "{use: image_folder, folder: nowhere}"


class WeightsConfig(EncoderConfig):
    """An encoder whose weights are a file."""

    file: str

    def missing(self) -> str | None:
        return None if Path(self.file).exists() else f"no weights at {self.file}"

    def token_grid(self, image_size: int) -> int:
        return image_size // 2

    def token_width(self) -> int:
        return 32


class TableConfig(RegularizerConfig):
    """A term that needs a table nobody has."""

    def missing(self) -> str | None:
        return "no table"


@pytest.fixture
def with_needs() -> Registry:
    registry = load_registry()
    plugin = Plugin("needy", __name__, "needy", "1")
    for kind, name, config in (
        ("encoder", "weights", "WeightsConfig"),
        ("regularizer", "table", "TableConfig"),
    ):
        target = f"absent:{name}"
        registry.add(ComponentSpec(kind, name, target, f"{__name__}:{config}", "", plugin))
    return registry


def test_data_that_is_not_here_is_named_with_the_place_that_asks_for_it(load: Load) -> None:
    (problem,) = missing_here(load(text=SMALL.replace("train: digits", f"train: {FOLDER}")))
    assert (problem.path, problem.where) == ("data.train", "small.yaml:5:3")
    assert "nowhere" in problem.message
    assert missing_here(load(text=SMALL)) == []


def test_every_kind_of_component_is_asked(small: Path, with_needs: Registry) -> None:
    encoder = "tokenizer.encoder={use: weights, file: a.bin}"
    loaded = load_recipe(small, [encoder, "tokenizer.regularizers.table={}"], with_needs)
    assert [(problem.path, problem.message) for problem in missing_here(loaded)] == [
        ("tokenizer.encoder", "no weights at a.bin"),
        ("tokenizer.regularizers.table", "no table"),
    ]
    Path("a.bin").touch()
    switched_off = "tokenizer.regularizers.table.weight=0"
    assert missing_here(load_recipe(small, [encoder, switched_off], with_needs)) == []


def test_every_member_of_a_sweep_is_asked_and_each_problem_comes_once(load: Load) -> None:
    text = SMALL + (
        "sweep:\n"
        "  seeds: [0, 1]\n"
        "  variants:\n"
        "    here: {}\n"
        f"    there: {{data.train: {FOLDER}}}\n"
        "    both: {tokenizer.train.steps: 20}\n"
    )
    assert [(p.path, p.where) for p in missing_here(load(text=text))] == [
        ("data.train", "small.yaml:34:13")
    ]


def test_a_sweep_needs_what_its_members_need_and_not_what_they_replace(load: Load) -> None:
    text = SMALL.replace("train: digits", f"train: {FOLDER}")
    loaded = load(text=text + "sweep: {variants: {digits: {data.train: digits}}}\n")
    assert missing_here(loaded) == []
    assert missing_here(replace(loaded, recipe=load(text=text).recipe)) != []
