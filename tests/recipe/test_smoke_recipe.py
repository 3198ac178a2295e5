"""The smoke version of a recipe: valid, small, with the same components."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import SMALL, Load

from pae_framework.config import DecoderConfig
from pae_framework.errors import RecipeError, UsageError
from pae_framework.plugins import load_registry
from pae_framework.preflight.requirements import members_of, missing_requirements
from pae_framework.recipe.library import shipped
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.recipe.sweep import expand
from pae_framework.registry import ComponentSpec, Plugin
from pae_framework.tokenizer.losses.terms import Ramp

NAMES = [name for name, _, _ in shipped()]


@pytest.mark.parametrize("name", NAMES)
def test_smoke_versions_of_shipped_recipes_need_nothing_and_load_again(
    name: str, tmp_path: Path
) -> None:
    loaded = load_recipe(name)
    small = smoke_recipe(loaded)
    assert missing_requirements(members_of(small)) == []
    assert small.recipe.runtime.device == "cpu"
    assert small.recipe.name == f"{loaded.recipe.name}-smoke"
    path = tmp_path / "resolved.yaml"
    path.write_text(small.resolved_yaml(), encoding="utf-8")
    assert load_recipe(path).recipe == small.recipe


def test_components_stay_and_sizes_shrink(load: Load) -> None:
    loaded = load(
        "tokenizer.train={epochs: 9, batch_size: 64, accumulate: 4, ema: 0.9, precision: bf16}",
        "generator.train={steps: 10, keep_steps: [5], workers: 4, warmup_steps: 3}",
        "sample.at_steps=[5]",
        "sample.few_steps=[5, 9]",
        "sample.processes=3",
    )
    recipe, small = loaded.recipe, smoke_recipe(loaded).recipe
    for section in ("encoder", "modulator", "bottleneck", "decoder"):
        before, after = (getattr(r.tokenizer, section) for r in (recipe, small))
        assert before.use == after.use
    assert small.tokenizer.regularizers.keys() == recipe.tokenizer.regularizers.keys()
    assert small.tokenizer.bottleneck == recipe.tokenizer.bottleneck  # channels stay
    assert small.evaluate.keys() == recipe.evaluate.keys()
    train = small.tokenizer.train
    assert (train.steps, train.epochs, train.batch_size, train.accumulate) == (2, None, 4, 2)
    assert (train.ema, train.precision) == (0.9, "float32")
    assert small.generator is not None
    assert (small.generator.train.workers, small.generator.train.warmup_steps) == (0, 0)
    assert small.sample is not None
    assert small.generator.train.keep_steps == small.sample.at_steps == (1,)
    assert (small.sample.few_steps, small.sample.processes) == ((2,), 1)
    assert small.data.train.use == small.data.test.use == "shapes"


@pytest.mark.parametrize("start", [None, {"epochs": 3}])
@pytest.mark.parametrize(
    ("weight", "first", "last"),
    [
        (0.5, 0.5, 0.5),
        ({"to": 0.5, "steps": 400}, 0, 0.5),
        ({"from": 0.5, "to": 0.1, "epochs": 5}, 0.5, 0.1),
    ],
)
def test_terms_have_their_last_weight_in_the_last_step(
    load: Load, start: dict[str, int] | None, weight: Any, first: float, last: float
) -> None:
    """Late terms have the largest weight there."""
    term = {"weight": weight, "start": start}
    loaded = load(
        "tokenizer.train={epochs: 100}", f"tokenizer.regularizers={{mcr: {json.dumps(term)}}}"
    )
    small = smoke_recipe(loaded).recipe.tokenizer_section.regularizers["mcr"]
    ramp = Ramp.of_weight(small.config.weight, small.start, per_epoch=1)
    expected = [0, max(first, last)] if start else [first, last]
    assert [ramp.at(step) for step in (0, 1)] == expected


@pytest.mark.parametrize(
    ("size", "patch", "expected"),
    [
        (64, 4, 16),  # 16 x 16 tokens become 4 x 4
        (16, 4, 16),  # 4 x 4 stay
        (32, 2, 16),  # 4 x 4 would be 8 px, too small for SSIM's window
        (24, 4, 16),  # 6 x 6 become 4 x 4
    ],
)
def test_images_shrink_to_four_tokens_per_side(
    load: Load, size: int, patch: int, expected: int
) -> None:
    text = SMALL.replace("patch: 2", f"patch: {patch}").replace(
        "image_size: 8", f"image_size: {size}"
    )
    small = smoke_recipe(load(text=text)).recipe
    assert small.data.image_size == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("null", None), ("[0]", (0,)), ("[1, 3]", (1,)), ("[0, 2]", (0, 1)), ("[3]", (1,))],
)
def test_compared_layers_stay_within_those_of_the_small_encoder(
    load: Load, layers: str, expected: tuple[int, ...] | None
) -> None:
    loaded = load(f"tokenizer.reconstruction.perceptual.layers={layers}")
    small = smoke_recipe(loaded).recipe.tokenizer
    assert small.encoder.config.feature_maps() == 2
    assert small.reconstruction.perceptual.layers == expected


def test_trained_weights_and_autoguidance_are_left_out(load: Load) -> None:
    small = smoke_recipe(
        load("tokenizer.weights=far.safetensors", "sample.guidance={scale: 2, autoguidance: far}")
    ).recipe
    assert small.tokenizer.weights is None
    assert small.sample is not None
    assert (small.sample.guidance.scale, small.sample.guidance.autoguidance) == (2, None)


def test_a_sweep_keeps_two_variants_with_one_seed(load: Load) -> None:
    text = SMALL + (
        "sweep:\n"
        "  seeds: [3, 4]\n"
        "  variants:\n"
        "    none: {tokenizer.regularizers: null}\n"
        "    long: {tokenizer.train.steps: 90000, generator: null, sample: null,"
        " evaluate.generation: null}\n"
        "    third: {}\n"
    )
    small = smoke_recipe(load(text=text))
    members = {member.name: member.loaded.recipe for member in expand(small)}
    assert list(members) == ["none-seed3", "long-seed3"]
    assert members["none-seed3"].tokenizer.regularizers == {}
    assert members["long-seed3"].tokenizer.train.steps == 2
    assert members["long-seed3"].generator is None
    assert members["long-seed3"].tokenizer.train.seed == 3
    chosen = smoke_recipe(load(text=text), only="third-seed4")
    assert [member.name for member in expand(chosen)] == ["third-seed4"]
    with pytest.raises(UsageError, match=r"'fourth-\*'.*third-seed4"):
        smoke_recipe(load(text=text), only="fourth-*")


def test_published_values_of_the_kept_variants_stay(load: Load) -> None:
    text = SMALL + (
        "sweep:\n"
        "  variants: {a: {}, b: {tokenizer.train.steps: 5}, c: {tokenizer.train.steps: 6}}\n"
        "  paper: {source: a table, values: {b: {GSQ: 0.5}, c: {GSQ: 0.6}}}\n"
    )
    small = smoke_recipe(load(text=text)).recipe.sweep
    assert small is not None
    assert small.paper is not None
    assert (small.paper.source, small.paper.values) == ("a table", {"b": {"GSQ": 0.5}})
    unpublished = smoke_recipe(load(text=text.replace("b: {GSQ: 0.5}, ", ""))).recipe.sweep
    assert unpublished is not None
    assert unpublished.paper is None


def test_shares_are_logged_in_every_step_if_they_are_logged(load: Load) -> None:
    key = "tokenizer.log_shares_every"
    assert smoke_recipe(load(f"{key}=200")).recipe.tokenizer_section.log_shares_every == 1
    assert smoke_recipe(load()).recipe.tokenizer_section.log_shares_every is None


class StubbornConfig(DecoderConfig):
    """A decoder for one token grid only."""

    def image_size(self, grid: int) -> int:
        if grid != 32:
            raise ValueError(f"takes 32 x 32 tokens, not {grid} x {grid}")
        return 64


def test_images_keep_their_size_if_a_component_needs_it(small: Path) -> None:
    registry = load_registry()
    plugin = Plugin("stubborn", __name__, "stubborn", "1")
    config = f"{__name__}:StubbornConfig"
    registry.add(ComponentSpec("decoder", "stubborn", "absent:x", config, "", plugin))
    overrides = ["data.image_size=64", "tokenizer.decoder=stubborn"]
    assert smoke_recipe(load_recipe(small, overrides, registry)).recipe.data.image_size == 64


class UnfitConfig(DecoderConfig):
    """A decoder whose smoke version rejects every token grid."""

    shrunk: bool = False

    def smoke(self) -> UnfitConfig:
        return self.model_copy(update={"shrunk": True})

    def image_size(self, grid: int) -> int:
        if self.shrunk:
            raise ValueError("does not fit")
        return 2 * grid


def test_components_that_do_not_fit_are_reported_with_a_remedy(small: Path) -> None:
    registry = load_registry()
    plugin = Plugin("unfit", __name__, "unfit", "1")
    spec = ComponentSpec("decoder", "unfit", "absent:x", f"{__name__}:UnfitConfig", "", plugin)
    registry.add(spec)
    loaded = load_recipe(small, ["tokenizer.decoder=unfit"], registry)
    with pytest.raises(RecipeError) as caught:
        smoke_recipe(loaded)
    (problem,) = caught.value.problems
    assert problem.path == "tokenizer.decoder"
    assert "does not fit" in problem.message
    assert "smoke()" in problem.hint


def test_variants_of_the_samples_shrink_and_stay_apart(load: Load) -> None:
    more = "{a: {steps: 250}, b: {steps: 100}, c: {solver: sde_heun, guidance: {scale: 3}}}"
    sample = smoke_recipe(load(f"sample.variants={more}")).recipe.sample
    assert sample is not None
    assert list(sample.variants) == ["a", "b", "c"]
    assert all(each.settings.steps < 10 for each in sample.sets(last=2))
    assert sample.variants["c"].solver == "sde_heun"


def test_a_protocol_for_convergence_shrinks(load: Load) -> None:
    small = smoke_recipe(load("sample.convergence={count: 50000, steps: 250}")).recipe
    assert small.sample is not None
    assert small.sample.convergence is not None
    assert (small.sample.convergence.count, small.sample.convergence.steps) == (16, 3)
    assert smoke_recipe(load()).recipe.sample.convergence is None  # type: ignore[union-attr]
