"""`extractor.pool` and `extractor.resize`: what is valid, and what they change."""

from __future__ import annotations

import pytest
from recipe_cases import Load, Problems

from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.runs.plan import plan

DINO = "extractor={use: dinov2, model: vit_small_patch14_dinov2, weights: none, pool: mean, "
RESIZED = DINO + "resize: {side: 224, interpolation: bilinear, antialias: false}}"


@pytest.mark.parametrize(
    ("override", "path", "facts"),
    [
        (DINO + "resize: {side: 250}}", "extractor", ["250", "240 or 256"]),
        ("extractor.pool=head", "extractor.pool", ["'head'", "own, mean"]),
        ("extractor={use: mae, weights: none, pool: head}", "extractor.pool", ["cls, mean"]),
        ("extractor.resize={side: 16}", "extractor.resize", ["small_cnn", "null"]),
        ("extractor.resize={size: 16}", "extractor.resize.size", ["side"]),
        (DINO + "resize: {side: 224, interpolation: lanczos}}", None, ["bicubic", "bilinear"]),
    ],
)
def test_what_does_not_fit_is_refused(
    problems: Problems, override: str, path: str | None, facts: list[str]
) -> None:
    found = problems(override)
    assert any(
        path in (None, problem.path) and all(fact in str(problem) for fact in facts)
        for problem in found
    ), found


def test_a_resized_extractor_may_have_a_patch_that_does_not_divide_the_images(load: Load) -> None:
    """Images of 8 px are no multiple of 16 px."""
    recipe = load(RESIZED).recipe
    assert recipe.extractor is not None
    assert recipe.extractor.image_size(8) == 224
    assert recipe.extractor.pooling == "mean"


def test_the_smoke_version_resizes_too(load: Load) -> None:
    small = smoke_recipe(load(RESIZED)).recipe
    assert small.extractor is not None
    assert small.extractor.image_size(8) == 224
    assert small.extractor.config.parameters(224) < 1_000_000


def fingerprints(load: Load, *overrides: str) -> dict[str, str]:
    loaded = load(*overrides)
    return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, loaded.registry)}


def changed(load: Load, first: tuple[str, ...], second: tuple[str, ...]) -> set[str]:
    before, after = fingerprints(load, *first), fingerprints(load, *second)
    return {name for name in before if before[name] != after[name]}


def test_they_change_what_is_evaluated_and_nothing_that_is_trained(load: Load) -> None:
    assert changed(load, (), ("extractor.pool=mean",)) == {"evaluate", "report"}
    resized = (RESIZED, "extractor.resize.side=448")
    assert changed(load, (RESIZED,), resized) == {"evaluate", "report"}
    assert changed(load, (), ("extractor.pool=null", "extractor.resize=null")) == set()
