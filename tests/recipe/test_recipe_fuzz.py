"""Whatever is written into a recipe, its user gets a RecipeError and never another exception."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recipe_cases import SMALL
from recipe_mutations import Base, bases, mutated, nearby

from pae_framework.errors import RecipeError
from pae_framework.launch.start import RunOptions, dry_run_recipe
from pae_framework.preflight.requirements import low_memory, members_of, missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
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
    max_examples=40,
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


def expect_recipe_error(
    path: Path, overrides: Sequence[str], registry: Registry
) -> LoadedRecipe | None:
    """Load and check; a refusal has problems, each with a message and a place."""
    try:
        loaded = load_recipe(path, overrides, registry)
    except RecipeError as error:
        problems = error.problems
    else:
        assert loaded.resolved_yaml().encode()
        missing_requirements(members_of(loaded))
        low_memory(members_of(loaded))
        return loaded
    assert problems
    assert all(problem.message and problem.where for problem in problems)
    assert str(problems).encode()
    return None


@pytest.fixture(scope="module")
def originals(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    """The small recipe, with and without a sweep, and every shipped one."""
    return bases(registry, tmp_path_factory.mktemp("bases"))


SLOWEST = 60
"""Seconds of CPU time; the largest valid networks take 10."""


def expect_a_dry_run_or_an_error(
    case: int, originals: list[Base], folder: Path, registry: Registry, dry_runs: bool = True
) -> None:
    """Change a recipe; if it is valid, its dry run ends, too."""
    random = Random(case)
    base = random.choice(originals)
    mutation = random.choice((mutated, nearby))(base, random)
    path = folder / "mutated.yaml"
    path.write_bytes(mutation.text.encode())
    start = time.process_time()
    try:
        loaded = expect_recipe_error(path, mutation.overrides, registry)
        if loaded is not None and dry_runs:
            assert dry_run_recipe(loaded, RunOptions(run_dir=folder / "run"))
    except Exception as error:
        error.add_note(f"case {case}: overrides {mutation.overrides}, text\n{mutation.text[:5000]}")
        raise
    assert time.process_time() - start < SLOWEST, f"case {case}: {mutation.overrides}"


@pytest.mark.parametrize("part", range(3))
def test_mutated_recipes_load_or_are_reported(
    part: int, originals: list[Base], small: Path, registry: Registry
) -> None:
    for case in range(40 * part, 40 * part + 40):
        expect_a_dry_run_or_an_error(case, originals, small.parent, registry, dry_runs=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # of wall time, on a busy machine; each case has a limit of CPU time
@pytest.mark.parametrize("part", range(100))
def test_many_mutated_recipes_run_dry_or_are_reported(
    part: int, originals: list[Base], small: Path, registry: Registry
) -> None:
    for case in range(1000 + 100 * part, 1100 + 100 * part):
        expect_a_dry_run_or_an_error(case, originals, small.parent, registry)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.image_size=8192"],
        [*(f"tokenizer.{part}.patch=1" for part in ("encoder", "decoder")), "data.image_size=4096"],
        ["data.train={use: shapes, count: 1000000000}"],
        ["tokenizer.bottleneck.channels=65536"],
        ["generator.width=65536", "tokenizer.encoder.width=65536", "tokenizer.encoder.heads=2"],
        pytest.param(
            ["tokenizer.modulator.depth=128", "tokenizer.modulator.mlp_ratio=64"],
            marks=pytest.mark.slow,
        ),
        ["sample.steps=5000", "sample.few_steps=[4999, 4998]", "sample.count=1000000000"],
        [f"generator.train.steps={10**9}", f"sample.at_steps=[{10**9}]"],
        [f"tokenizer.regularizers.mcr.angles={list(range(1, 101))}"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_values_at_the_limits_run_dry(
    overrides: list[str], small: Path, registry: Registry
) -> None:
    start = time.process_time()
    loaded = expect_recipe_error(small, overrides, registry)
    assert loaded is not None
    assert dry_run_recipe(loaded, RunOptions(run_dir=small.parent / "run"))
    assert time.process_time() - start < SLOWEST


@pytest.mark.parametrize("case", range(6))
def test_values_near_those_of_the_small_recipe_run_dry(
    case: int, originals: list[Base], small: Path, registry: Registry
) -> None:
    expect_a_dry_run_or_an_error(case, originals[:1], small.parent, registry)


def test_the_fuzzed_recipe_is_valid(small: Path, registry: Registry) -> None:
    with pytest.raises(RecipeError):
        load_recipe(small, ["pae=0"], registry)
    assert load_recipe(small, (), registry).recipe.name == "small"
