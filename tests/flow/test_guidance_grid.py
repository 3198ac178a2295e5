"""The grid of ``pae tune-guidance``: its points, and what a user may write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pae_framework.errors import UsageError
from pae_framework.evaluation.tune_guidance import best_line, cautions
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.guidance_grid import (
    GuidancePoint,
    grid_points,
    parse_intervals,
    parse_scales,
    parse_shifts,
)
from pae_framework.recipe.load import load_recipe

WHOLE, LATE = (0.0, 1.0), (0.25, 1.0)


def test_every_combination_once_and_scale_1_with_no_interval() -> None:
    found = grid_points([1, 2], [WHOLE, LATE], [None])
    assert [(point.scale, point.interval) for point in found] == [
        (1, WHOLE),
        (2, WHOLE),
        (2, LATE),
    ]
    assert len(grid_points([1, 2, 3], [WHOLE, LATE], [0.4, 1.0])) == 2 * (1 + 2 * 2)
    # One interval without the whole range: scale 1 is still one point.
    assert len(grid_points([1], [LATE, (0.5, 1.0)], [None])) == 1


def test_what_users_write() -> None:
    assert parse_scales("1,1.5, 2") == [1, 1.5, 2]
    assert parse_intervals("0:1,.1:0.9") == [(0, 1), (0.1, 0.9)]
    assert parse_shifts("0.4,1") == [0.4, 1]


@pytest.mark.parametrize(
    ("parse", "text", "named"),
    [
        *((parse_scales, text, "--scales") for text in ("", "1,", "a", "0.9", "-1", "nan", "inf")),
        *((parse_scales, text, "--scales") for text in ("1,1", "1,1.0", "1e7", "1:2", "1;2")),
        *((parse_intervals, text, "--intervals") for text in ("", "0", "0:1:2", ":", "0:", "a:b")),
        *((parse_intervals, text, "--intervals") for text in ("1:0", "0.5:0.5", "-0.1:1", "0:1.1")),
        *((parse_intervals, text, "--intervals") for text in ("nan:1", "0:nan", "0:1,0:1", "0:1,")),
        *((parse_shifts, text, "--shifts") for text in ("", "0", "-1", "nan", "inf", "1,1", "x")),
    ],
)
def test_what_makes_no_sense(parse: Callable[[str], object], text: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        parse(text)


def test_the_settings_of_a_point() -> None:
    base = SampleSettings.model_validate(
        {
            **{"steps": 7, "shift_base": 4096},
            "guidance": {"scale": 4, "channels": "first_three", "autoguidance": "runs/weak"},
        }
    )
    guided = GuidancePoint(2, LATE, 0.5).settings(base)
    assert (guided.guidance.scale, guided.guidance.interval) == (2, LATE)
    assert (guided.guidance.channels, guided.guidance.autoguidance) == ("first_three", "runs/weak")
    assert (guided.shift, guided.shift_base, guided.steps) == (0.5, None, 7)
    plain = GuidancePoint(1, WHOLE).settings(base)
    assert (plain.guidance.scale, plain.guidance.autoguidance) == (1, None)
    assert (plain.shift, plain.shift_base) == (1.0, 4096)


points = st.builds(
    GuidancePoint,
    st.floats(1, 1e6) | st.just(1.0),
    st.tuples(st.floats(0, 0.5), st.floats(0.5, 1, exclude_min=True)),
    st.none() | st.floats(1e-6, 1e6),
)


MINE = """\
pae: 1
extends: quickstart
name: mine
"""
OWN = "sample: {count: 40, steps: 9, shift_base: 64, few_steps: [1, 3], seed: 5, labels: uniform}"
OPTIONS = st.fixed_dictionaries(
    {
        "solver": st.sampled_from(["euler", "heun", "euler_maruyama", "sde_heun", "dopri5"]),
        "steps": st.integers(2, 60),
        "precision": st.sampled_from(["float32", "bf16"]),
        "seed": st.just(77),
        "count": st.just(8),
    }
)


@given(points, OPTIONS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_line_replaces_the_section_of_the_recipe_and_gives_the_settings_of_the_point(
    tmp_path: Path, point: GuidancePoint, options: dict[str, Any]
) -> None:
    """Whatever the parent recipe sets; seed and number of images stay those of the recipe."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE + OWN)
    own = load_recipe(path).recipe.sample
    assert own is not None
    base = SampleSettings.model_validate({**own.alone.model_dump(), **options})
    best = point.settings(base)
    line = best_line(own, best)
    assert "\n" not in line
    path.write_text(MINE + line)
    found = load_recipe(path).recipe.sample
    assert found is not None
    kept = {"count": 40, "seed": 5, "labels": "uniform"}
    assert found.alone == best.model_copy(update=kept)
    takes_one_step = options["solver"] in ("euler", "heun")
    assert found.few_steps == ((1, 3) if takes_one_step else ())


@pytest.mark.parametrize("of_parent", [True, False])
def test_a_variant_that_equals_the_best_point_is_left_out(tmp_path: Path, of_parent: bool) -> None:
    """The recipe measures guided samples and unguided ones; no guidance is best."""
    variants = "{unguided: {guidance: {scale: 1}}, guided: {guidance: {scale: 4}}}"
    section = f"sample: {{guidance: {{scale: 2}}, variants: {variants}}}\n"
    path = tmp_path / "mine.yaml"
    path.write_text(MINE + section)
    own = load_recipe(path).recipe.sample
    assert own is not None
    line = best_line(own, own.alone.model_copy(update={"guidance": Guidance()}))
    if of_parent:
        path = tmp_path / "child.yaml"
        path.write_text(f"pae: 1\nextends: mine.yaml\nname: child\n{line}\n")
    else:
        path.write_text(MINE + line)
    found = load_recipe(path).recipe.sample
    assert found is not None
    assert found.variants.keys() == {"guided"}
    assert found.guidance == Guidance()


def test_cautions_name_the_images_and_the_choice_of_the_least() -> None:
    assert "500 images" in cautions(500, [1])[0]
    assert len(cautions(500, [1])) == 1
    assert "12 values" in cautions(500, range(12))[1]
