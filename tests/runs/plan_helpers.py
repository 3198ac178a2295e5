"""Fingerprints of recipes, and the stages that depend on one."""

from __future__ import annotations

from pathlib import Path

from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.plan import plan

REGISTRY = load_registry()


def fingerprints(recipe: Path, *overrides: str) -> dict[str, str]:
    loaded = load_recipe(recipe, overrides, REGISTRY)
    return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, REGISTRY)}


def from_stage(name: str, recipe: Recipe) -> set[str]:
    """A stage and all that depend on it, as the table's inputs say."""
    found = {name}
    for stage in STAGES.values():
        if found & set(stage.inputs(recipe)):
            found.add(stage.name)
    return found


QUICKSTART = load_recipe("quickstart", (), REGISTRY).recipe
FROM_TOKENIZER = from_stage("tokenizer", QUICKSTART)
FROM_REFINE = from_stage("refine", QUICKSTART)
