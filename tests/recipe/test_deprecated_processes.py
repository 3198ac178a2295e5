"""Settings by which earlier versions started processes: accepted, said to do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.plugins import load_registry
from pae_framework.preflight.processes import settings_without_effect
from pae_framework.recipe.load import load_recipe
from pae_framework.testing.pytest import Pae

KEYS = ("latents.processes", "sample.processes")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ((), []),
        (("latents.processes=1", "sample.processes=1"), []),
        (("latents.processes=4",), ["latents.processes"]),
        (("sample.processes=2",), ["sample.processes"]),
        (("latents.processes=4", "sample.processes=2"), list(KEYS)),
        (("latents.processes=4", "sample=null", "evaluate=null"), ["latents.processes"]),
    ],
)
def test_only_those_that_would_have_started_processes_are_named_once(
    overrides: tuple[str, ...], named: list[str]
) -> None:
    loaded = load_recipe("quickstart", overrides, load_registry())
    found = settings_without_effect([loaded, loaded])
    assert [problem.path for problem in found] == named
    assert all("--processes" in problem.hint for problem in found)


def test_check_says_where_the_setting_is(pae: Pae, tmp_path: Path) -> None:
    recipe = tmp_path / "old.yaml"
    recipe.write_text("pae: 1\nextends: quickstart\nname: old\nlatents: {processes: 8}\n")
    answer = pae("check", recipe).ok()
    assert "old.yaml:4:" in answer.out
    assert "latents.processes" in answer.out


def test_a_resolved_recipe_of_an_earlier_version_is_still_one(tmp_path: Path) -> None:
    loaded = load_recipe("quickstart", ["latents.processes=8", "sample.processes=2"])
    path = tmp_path / "resolved.yaml"
    path.write_text(loaded.resolved_yaml(), encoding="utf-8")
    assert load_recipe(path).recipe == loaded.recipe
