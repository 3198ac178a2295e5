"""The section `tokenizer`: composed of four components, or one component chosen by `use`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.completion import completions
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.plan import plan

PLUGIN = '''
from pae_framework import hookimpl
from pae_framework.config import LatentShape, TokenizerConfig
from pydantic import Field

pae_api = 1


class PatchesConfig(TokenizerConfig):
    """Patches."""

    channels: int = Field(4, description="channels")
    can: str = Field("both", description="what it can")
    folder: str | None = Field(None, description="of latents")

    def latent_shape(self, image_size):
        if image_size % 8:
            raise ValueError(f"{image_size} px are not a multiple of 8")
        return LatentShape(self.channels, image_size // 8)

    @property
    def encodes(self):
        return self.can in ("both", "encode")

    @property
    def decodes(self):
        return self.can in ("both", "decode")

    def latents_folder(self):
        return self.folder


@hookimpl
def pae_register_tokenizers(register):
    target = f"{__name__}:Patches"
    for name in ("patches", "others"):
        register(name, target=target, config=f"{__name__}:PatchesConfig", summary="Patches.")


class Patches:
    pass
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("any-tokenizer")
    (path / "patches_of_tests.py").write_text(PLUGIN)
    return path


class Recipes:
    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, *layers: dict[str, Any], overrides: tuple[str, ...] = ()) -> LoadedRecipe:
        """The recipe of the last layer; each extends the one before, the first the quickstart."""
        parent = "quickstart"
        for number, layer in enumerate(layers):
            file = self.folder / f"layer{number}.yaml"
            plugins = ["patches_of_tests.py"] if number == 0 else []
            body = {"pae": 1, "extends": parent, "name": "any", "plugins": plugins, **layer}
            file.write_text(yaml.safe_dump(body))
            parent = file.name
        return load_recipe(self.folder / parent, overrides, load_registry())


@pytest.fixture
def recipes(folder: Path) -> Recipes:
    return Recipes(folder)


WHOLE = {"tokenizer": {"use": "patches"}}
COMPOSED = yaml.safe_load(
    """
tokenizer:
  encoder: {use: tiny_vit, patch: 8, train: {steps: 3}}
  modulator: none
  bottleneck: {use: sphere}
  decoder: {use: vit, patch: 8, width: 24, depth: 1, heads: 2}
  train: {steps: 3}
"""
)


def stages(loaded: LoadedRecipe) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, loaded.registry)}


def problems(recipes: Recipes, *layers: dict[str, Any], **options: Any) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        recipes(*layers, **options)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    "written", [{"use": "patches"}, "patches", {"use": "patches", "can": "both"}]
)
def test_a_component_replaces_the_composed_section(recipes: Recipes, written: Any) -> None:
    recipe = recipes({"tokenizer": written}).recipe
    assert recipe.composed is None
    assert recipe.tokenizer.model_dump() == {
        "use": "patches",
        "channels": 4,
        "can": "both",
        "folder": None,
        "lpips": None,
    }


def test_a_composed_section_replaces_a_component(recipes: Recipes) -> None:
    composed = recipes(WHOLE, COMPOSED).recipe.composed
    assert composed is not None
    assert composed.decoder.use == "vit"
    assert composed.regularizers == {}  # the quickstart's were dropped with its section


def test_use_null_also_leads_back(recipes: Recipes) -> None:
    again = {"tokenizer": {"use": None, **COMPOSED["tokenizer"]}}
    assert recipes(WHOLE, again).recipe.composed is not None


def test_changes_of_a_component_keep_the_rest(recipes: Recipes) -> None:
    first = {"tokenizer": {"use": "patches", "channels": 6, "lpips": {"weights": "none"}}}
    recipe = recipes(
        first, {"tokenizer": {"can": "encode"}, "sample": None, "evaluate": None}
    ).recipe
    dumped = recipe.tokenizer.model_dump()
    assert (dumped["channels"], dumped["can"], dumped["lpips"]) == (
        6,
        "encode",
        {"weights": "none"},
    )


def test_another_component_keeps_only_the_keys_of_the_engine(recipes: Recipes) -> None:
    first = {"tokenizer": {"use": "patches", "channels": 6, "lpips": {"weights": "none"}}}
    dumped = recipes(first, {"tokenizer": {"use": "others"}}).recipe.tokenizer.model_dump()
    assert (dumped["channels"], dumped["lpips"]) == (4, {"weights": "none"})


def test_an_override_of_use_drops_the_section(recipes: Recipes) -> None:
    loaded = recipes({}, overrides=("tokenizer.use=patches", "tokenizer.channels=2"))
    assert loaded.recipe.tokenizer.model_dump()["channels"] == 2


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ({"use": "patches", "encoder": {"use": "tiny_vit"}}, "tokenizer.encoder"),
        ({"use": "patches", "chanels": 2}, "tokenizer.chanels"),
        ({"use": "patches", "channels": "two"}, "tokenizer.channels"),
        ({"use": "unknown"}, "tokenizer.use"),
        ({"use": 3}, "tokenizer.use"),
        ({"use": "patches", "lpips": {"weight": 1}}, "tokenizer.lpips.weight"),
        ({"decoder": {"use": "vit", "depht": 2}}, "tokenizer.decoder.depht"),
        ({"encodr": {}}, "tokenizer.encodr"),
    ],
)
def test_an_error_is_about_one_model(recipes: Recipes, written: Any, path: str) -> None:
    assert list(problems(recipes, {"tokenizer": written})) == [path]


@pytest.mark.parametrize("written", [3, [], True, {}])
def test_something_else_is_one_error(recipes: Recipes, written: Any) -> None:
    body = yaml.safe_dump({"pae": 1, "name": "any", "data": None, "tokenizer": written})
    file = recipes.folder / "wrong.yaml"
    file.write_text(body)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, (), load_registry())
    assert all("Component" not in str(problem) for problem in caught.value.problems)


def test_only_what_needs_a_component_runs(recipes: Recipes) -> None:
    names = stages(recipes(WHOLE))
    assert not {"encoder", "refine"} & names.keys()
    assert {"extractor", "tokenizer", "latents", "generator", "evaluate", "report"} <= names.keys()


def test_fingerprints_follow_parameters_and_the_distance_used(
    recipes: Recipes,
) -> None:
    plain, lpips = recipes(WHOLE), {"tokenizer": {"lpips": {"weights": "none"}}}
    base, measured = stages(plain), stages(recipes(WHOLE, lpips))
    other = stages(recipes(WHOLE, {"tokenizer": {"channels": 8}}))
    assert {name for name in base if base[name] != measured[name]} == {"evaluate", "report"}
    assert {name for name in base if base[name] == other[name]} == {"extractor"}


def test_a_seed_changes_no_component(recipes: Recipes) -> None:
    assert stages(recipes(WHOLE))["tokenizer"] == stages(recipes(WHOLE, {"seed": 3}))["tokenizer"]


@pytest.mark.parametrize(
    ("can", "paths"),
    [
        ("encode", {"sample", "evaluate.reconstruction"}),
        ("decode", {"latents", "evaluate.reconstruction", "evaluate.manifold"}),
        ("none", {"latents", "sample", "evaluate.reconstruction", "evaluate.manifold"}),
    ],
)
def test_what_a_tokenizer_cannot_do_is_said_first(
    recipes: Recipes, can: str, paths: set[str]
) -> None:
    found = problems(recipes, {"tokenizer": {"use": "patches", "can": can}})
    assert found.keys() == paths
    assert all("patches" in message for message in found.values())


@pytest.mark.parametrize(
    ("latents", "more"),
    [
        ({}, ()),
        ({"normalize": False}, ("latents.normalize=true",)),
        ({"stored": False}, ("latents.stored=true",)),
        ({"stored": False, "normalize": False}, ("latents.stored=true", "latents.normalize=true")),
        (
            {"stored": False, "statistics": "latents_stats.pt"},
            ("latents.stored=true", "latents.statistics=null"),
        ),
    ],
    ids=["stored", "raw", "not-stored", "raw-not-stored", "statistics"],
)
def test_a_tokenizer_that_does_not_encode_needs_latents(
    recipes: Recipes, latents: dict[str, Any], more: tuple[str, ...]
) -> None:
    decodes = {"tokenizer": {"use": "patches", "can": "decode"}, "evaluate": None}
    with pytest.raises(RecipeError) as caught:
        recipes(decodes, {"latents": latents})
    (problem,) = caught.value.problems
    assert problem.path == "latents"
    assert "patches" in problem.message
    overrides = problem.hint.removeprefix("set ").split(", ")
    assert set(overrides[1:]) == set(more)
    recipes(decodes, {"latents": latents}, overrides=("latents.folder=/latents", *overrides[1:]))


def test_a_trained_generator_needs_only_statistics(recipes: Recipes) -> None:
    body = {
        "tokenizer": {"use": "patches", "can": "decode"},
        "generator": {"weights": "generator.safetensors"},
        "sample": {"at_steps": []},
        "evaluate": None,
        "latents": {"statistics": "latents_stats.pt"},
    }
    assert not recipes(body).recipe.latents.encoded


def test_its_latents_are_those_of_the_recipe(recipes: Recipes) -> None:
    own = {"use": "patches", "can": "none", "folder": "/data/latents"}
    recipe = recipes({"tokenizer": own, "sample": None, "evaluate": None}).recipe
    assert (recipe.latents.folder, recipe.latents.written) == ("/data/latents", False)
    other = {"tokenizer": own, "sample": None, "evaluate": None, "latents": {"folder": "/other"}}
    assert recipes(other).recipe.latents.folder == "/other"


def test_an_image_size_that_does_not_fit(recipes: Recipes) -> None:
    small = {**WHOLE, "extractor": None, "evaluate": None, "data": {"image_size": 28}}
    assert list(problems(recipes, small)) == ["tokenizer"]


def test_completion_offers_the_keys_of_what_is_there(recipes: Recipes) -> None:
    loaded = recipes(WHOLE)
    assert set(completions(loaded, "tokenizer.")) == {
        "tokenizer.use=",
        "tokenizer.lpips.",
        "tokenizer.channels=",
        "tokenizer.can=",
        "tokenizer.folder=",
    }
    assert "tokenizer.use=patches" in completions(loaded, "tokenizer.use=p")
    assert "tokenizer.encoder." in completions(recipes({}), "tokenizer.e")
