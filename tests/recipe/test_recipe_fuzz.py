"""Whatever is written into a recipe, its user gets a RecipeError and never another exception."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recipe_cases import SMALL

from pae_framework.errors import RecipeError
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry

LINES = SMALL.splitlines(keepends=True)
PIECES = (
    *("null", "[]", "{}", "[1, 2]", "{a: 1}", "-1", "1e9", ".nan", "1.5", "true", "x", "train"),
    *("'", "{", ": ", "*a", "&a ", "!b ", "- ", "\t", "\n", "use: none"),
)
KEYS = (
    *("pae", "name", "extends", "config", "use", "data", "data.train", "extractor", "tokenizer"),
    *(f"tokenizer.{key}" for key in ("encoder", "encoder.train", "bottleneck", "decoder.patch")),
    *(f"tokenizer.{key}" for key in ("regularizers", "regularizers.ssr", "refinement.heads")),
    *("generator", "generator.train.keep_steps", "sample.at_steps", "sample.guidance.interval"),
    *("evaluate.manifold", "sweep", "sweep.variants", "sweep.seeds"),
)

edits = st.tuples(
    st.integers(0, len(LINES) - 1),
    st.integers(0, 60),
    st.integers(0, 12),
    st.sampled_from(PIECES) | st.text(max_size=4),
)


def edited(changes: list[tuple[int, int, int, str]]) -> str:
    """The small recipe with pieces of lines replaced."""
    lines = list(LINES)
    for line, start, length, piece in changes:
        text = lines[line]
        lines[line] = text[:start] + piece + text[start + length :]
    return "".join(lines)


quiet = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quiet
@given(changes=st.lists(edits, min_size=1, max_size=3))
@example(changes=[(0, 0, 60, "? [a]\n: b\n")])
def test_edited_text_loads_or_is_reported(
    changes: list[tuple[int, int, int, str]], small: Path, registry: Registry
) -> None:
    small.write_text(edited(changes), encoding="utf-8", errors="replace")
    expect_recipe_error(small, [], registry)


@quiet
@given(
    overrides=st.lists(
        st.builds(
            lambda key, value: f"{key}={value}",
            st.sampled_from(KEYS) | st.text(max_size=5),
            st.sampled_from(PIECES) | st.text(max_size=5),
        ),
        min_size=1,
        max_size=3,
    )
)
@example(overrides=["sweep={variants: {a: {sweep: {}}}}"])
@example(overrides=["sweep={variants: {a: {tokenizer: null}}}"])
@example(overrides=["tokenizer.encoder.config={}"])
@example(overrides=["sample={use: x}"])
def test_overridden_recipes_load_or_are_reported(
    overrides: list[str], small: Path, registry: Registry
) -> None:
    expect_recipe_error(small, overrides, registry)


def expect_recipe_error(path: Path, overrides: list[str], registry: Registry) -> None:
    """Load; a refusal has problems, each with a message and a place."""
    try:
        loaded = load_recipe(path, overrides, registry)
    except RecipeError as error:
        problems = error.problems
    else:
        assert loaded.resolved_yaml()
        return
    assert problems
    assert all(problem.message and problem.where for problem in problems)


def test_the_fuzzed_recipe_is_valid(small: Path, registry: Registry) -> None:
    with pytest.raises(RecipeError):
        load_recipe(small, ["pae=0"], registry)
    assert load_recipe(small, (), registry).recipe.name == "small"
