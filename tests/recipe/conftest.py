"""Ways to load variations of a small valid recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import SMALL, Load, Problems

from pae_framework.errors import Problem, RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.registry import Registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe as ``small.yaml`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def load(small: Path, registry: Registry) -> Load:
    """Load ``small.yaml``, or the text given, with overrides."""

    def load(*overrides: str, text: str | None = None, name: str = "small.yaml") -> LoadedRecipe:
        if text is not None:
            (small.parent / name).write_text(text)
        return load_recipe(small.parent / name, overrides, registry)

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    """What is wrong with a recipe that must not load."""

    def problems(
        *overrides: str, text: str | None = None, name: str = "small.yaml"
    ) -> list[Problem]:
        with pytest.raises(RecipeError) as caught:
            load(*overrides, text=text, name=name)
        return list(caught.value.problems)

    return problems
