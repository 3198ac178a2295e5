"""Checks of the terms of the tokenizer's loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import Load, Problems, unstated

from pae_framework.config import Length, RegularizerConfig
from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.consistency import inconsistencies
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry

NO_RECONSTRUCTION = ["tokenizer.reconstruction={l1: 0, perceptual: {weight: 0}}"]
EPOCHS = "tokenizer.train={epochs: 3}"
PATCHES = "tokenizer.adversarial={discriminator: {use: patchgan, layers: 1, width: 4}}"


@pytest.mark.parametrize(
    ("overrides", "path", "facts"),
    [
        (
            ["tokenizer.adversarial={discriminator: patchgan}"],
            "tokenizer.adversarial.discriminator",
            ["24 px", "8"],
        ),
        (
            [
                PATCHES,
                "tokenizer.train={epochs: 9}",
                "tokenizer.adversarial.update_from={epochs: 6}",
            ],
            "tokenizer.adversarial.start",
            ["before update_from", "set tokenizer.adversarial.start={epochs: 6}"],
        ),
        (  # the training has 10 steps, the first of them is 0
            [PATCHES, "tokenizer.adversarial.start={steps: 10}"],
            "tokenizer.adversarial.start",
            ["the training ends at", "tokenizer.adversarial.start"],
        ),
        (
            [PATCHES, EPOCHS, "tokenizer.adversarial.start={epochs: 3}"],
            "tokenizer.adversarial.start",
            ["the training ends at", "tokenizer.adversarial.start"],
        ),
        (  # 23 steps of 64 images are one epoch of the 1442 digits
            [
                PATCHES,
                "tokenizer.train.steps=40",
                "tokenizer.adversarial.start={epochs: 2}",
            ],
            "tokenizer.adversarial.start",
            ["the training ends at {steps: 40}", "earlier tokenizer.adversarial.start"],
        ),
        (  # steps and epochs of an unknown number of images cannot be compared
            [
                PATCHES,
                "data.train={use: image_folder, folder: x}",
                "tokenizer.adversarial.update_from={steps: 10}",
                "tokenizer.adversarial.start={epochs: 3}",
            ],
            "tokenizer.adversarial.update_from",
            ["the training ends at {steps: 10}", "earlier tokenizer.adversarial.update_from"],
        ),
        (
            [PATCHES, "tokenizer.adversarial.optimizer.warmup_steps=11"],
            "tokenizer.adversarial.optimizer.warmup_steps",
            ["11", "(10)", "set tokenizer.adversarial.optimizer.warmup_steps=1"],
        ),
        *(  # the training has 10 steps, of which the discriminator takes 6
            (
                [
                    PATCHES,
                    "tokenizer.adversarial.update_from={steps: 4}",
                    "tokenizer.adversarial.start={steps: 4}",
                    f"tokenizer.adversarial.optimizer.{change}",
                ],
                f"tokenizer.adversarial.optimizer.{change.partition('=')[0]}",
                ["own steps", "update_from", *facts],
            )
            for change, facts in (
                ("decay_from={steps: 5}", ["step 5", "(5)"]),
                ("warmup_steps=7", ["7", "(6)"]),
            )
        ),
        (  # the encoder has 4 blocks
            ["tokenizer.reconstruction.perceptual.layers=[1, 4]"],
            "tokenizer.reconstruction.perceptual.layers",
            ["layer 4", "'tiny_vit'", "0 to 3", "perceptual.layers=[1]"],
        ),
        (  # with one block
            [
                "tokenizer.encoder.depth=1",
                "tokenizer.reconstruction.perceptual={weight: 0, layers: [5]}",
            ],
            "tokenizer.reconstruction.perceptual.layers",
            ["layer 5", "0 to 0", "perceptual.layers=[0]"],
        ),
        (
            [PATCHES, *NO_RECONSTRUCTION],
            "tokenizer.adversarial.adaptive",
            ["weight 0", "set tokenizer.adversarial.adaptive=false"],
        ),
        (
            ["tokenizer.reconstruction.lpips={weight: 1, weights: none}"],
            "tokenizer.reconstruction.lpips",
            ["16 px", "data.image_size is 8", "set tokenizer.reconstruction.lpips.weight=0"],
        ),
        (
            [*NO_RECONSTRUCTION, "tokenizer.regularizers={mcr: {}}", "tokenizer.refinement=null"],
            "tokenizer.regularizers.mcr",
            [
                "weight 0",
                "set tokenizer.reconstruction.l1=1",
                "tokenizer.regularizers.mcr.weight=0",
            ],
        ),
        (
            [*NO_RECONSTRUCTION, "tokenizer.regularizers={vf: {}}"],
            "tokenizer.regularizers.vf",
            ["weight 0", "set tokenizer.regularizers.vf.adaptive=false"],
        ),
        (
            [
                "tokenizer.bottleneck=identity",
                "tokenizer.regularizers={vf: {}}",
                "tokenizer.refinement=null",
            ],
            "tokenizer.regularizers.vf",
            ["'identity'", "set tokenizer.regularizers.vf.adaptive=false"],
        ),
        (  # the training has 10 steps, the first of them is 0
            ["tokenizer.regularizers.ssr.start={steps: 10}"],
            "tokenizer.regularizers.ssr.start",
            ["the training ends at", "an earlier tokenizer.regularizers.ssr.start"],
        ),
        (
            [
                "tokenizer.regularizers.ssr.start={steps: 4}",
                "tokenizer.regularizers.ssr.weight={to: 0.5, steps: 7}",
            ],
            "tokenizer.regularizers.ssr.weight",
            [
                "the training ends at {steps: 10}, before the weight is 0.5",
                "fewer tokenizer.regularizers.ssr.weight.steps",
            ],
        ),
        (
            [
                *NO_RECONSTRUCTION,
                "tokenizer.regularizers={ssr: {weight: {to: 1, steps: 2}}}",
            ],
            "tokenizer.regularizers.ssr",
            ["no term", "every step", "set tokenizer.reconstruction.l1=1", "never be 0"],
        ),
        (  # from step 5 to 7 there is no term
            [
                *NO_RECONSTRUCTION,
                "tokenizer.regularizers={ssr: {weight: {from: 1, to: 0, steps: 5}}, "
                "scr: {start: {steps: 8}}}",
            ],
            "tokenizer.regularizers.ssr",
            ["no term", "every step", "set tokenizer.reconstruction.l1=1", "never be 0"],
        ),
        (
            [*NO_RECONSTRUCTION, "tokenizer.regularizers={scr: {start: {steps: 8}}}"],
            "tokenizer.regularizers.scr",
            ["no term", "every step", "tokenizer.regularizers.scr.start=null"],
        ),
        (
            [*NO_RECONSTRUCTION, "tokenizer.regularizers={}", "tokenizer.refinement=null"],
            "tokenizer.reconstruction",
            ["every term", "weight 0", "set tokenizer.reconstruction.l1=1"],
        ),
    ],
)
def test_an_inconsistency_is_reported_at_its_key(
    problems: Problems, overrides: list[str], path: str, facts: list[str]
) -> None:
    (problem,) = problems(*overrides)
    assert problem.path == path
    assert unstated(problem, *facts) == []


@pytest.mark.parametrize(
    "overrides",
    [
        [PATCHES],
        [PATCHES, "tokenizer.adversarial.start={steps: 9}"],
        [PATCHES, EPOCHS, "tokenizer.adversarial.start={steps: 10}"],
        [PATCHES, "tokenizer.adversarial.start={steps: 10}", "tokenizer.weights=trained.pt"],
        [PATCHES, "tokenizer.adversarial.adaptive=false", *NO_RECONSTRUCTION],
        ["tokenizer.adversarial={discriminator: patchgan, weight: 0}"],
        ["tokenizer.reconstruction={l1: 0, perceptual: {weight: 0}, lpips: {weight: 0}}"],
        ["tokenizer.reconstruction.lpips={weight: 0}"],
        ["tokenizer.target=raw", "tokenizer.refinement=null"],
        [*NO_RECONSTRUCTION, "tokenizer.regularizers={mcr: {weight: 0}, scr: {}}"],
        [*NO_RECONSTRUCTION, "tokenizer.regularizers={vf: {adaptive: false}}"],
        [
            "tokenizer.weights=trained.pt",
            "tokenizer.bottleneck=identity",
            "tokenizer.refinement=null",
            "tokenizer.regularizers={vf: {adaptive: true}}",
        ],
    ],
    ids=[
        "small",
        "at the end",
        "not known",
        "loaded",
        "alone",
        "off",
        "aligned only",
        "no lpips",
        "raw",
        "mcr off",
        "vf of fixed weight",
        "loaded without projector",
    ],
)
def test_consistent_recipes_are_valid(load: Load, overrides: list[str]) -> None:
    assert inconsistencies(load(*overrides).recipe) == []


class AdaptingConfig(RegularizerConfig):
    """A term whose weight is always adaptive: it has no setting `adaptive`."""

    @property
    def adapts_weight(self) -> bool:
        return True


def test_the_remedy_for_an_adaptive_weight_is_a_setting_that_the_term_has(small: Path) -> None:
    registry: Registry = load_registry()
    plugin = Plugin("adapting", __name__, "adapting", "1")
    config = f"{__name__}:AdaptingConfig"
    registry.add(ComponentSpec("regularizer", "adapting", "absent:x", config, "", plugin))
    changes = [*NO_RECONSTRUCTION, "tokenizer.regularizers={adapting: {}}"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, changes, registry)
    (problem,) = caught.value.problems
    assert problem.path == "tokenizer.regularizers.adapting"
    assert problem.hint == "set tokenizer.regularizers.adapting.weight=0"


def test_without_refinement_the_remedy_is_a_raw_target(problems: Problems) -> None:
    changes = ["tokenizer.refinement=null", "tokenizer.regularizers={ssr: {}}"]
    (problem,) = problems(*changes)
    assert problem.path == "tokenizer.regularizers.ssr"
    assert "set tokenizer.target=raw" in problem.hint


@pytest.mark.parametrize(
    ("first", "second", "earlier"),
    [
        ({"steps": 3}, {"steps": 4}, True),
        ({"steps": 4}, {"steps": 4}, False),
        ({"epochs": 5.5}, {"epochs": 6}, True),
        ({"epochs": 6}, {"epochs": 5.5}, False),
        ({"steps": 0}, {"epochs": 0.1}, True),
        ({"epochs": 0}, {"steps": 1}, True),
        ({"steps": 0}, {"epochs": 0}, False),
        ({"steps": 10}, {"epochs": 1}, False),  # unknown without the data
    ],
)
def test_which_of_two_lengths_is_shorter(
    first: dict[str, float], second: dict[str, float], earlier: bool
) -> None:
    assert Length.model_validate(first).before(Length.model_validate(second)) is earlier
