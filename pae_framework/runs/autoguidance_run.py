"""Checks of the run that ``sample.guidance.autoguidance`` names, from its directory. No torch."""

from __future__ import annotations

from pathlib import Path

from pae_framework.config import LatentShape
from pae_framework.errors import PaeError
from pae_framework.plugins import Registry
from pae_framework.recipe.derived import known_classes, latent_shape
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import generator_weights


def guiding_fault(recipe: Recipe, registry: Registry) -> str | None:
    """Why the run that is named for autoguidance cannot guide this recipe's generator.

    None: nothing is known against it, or none is named. Whether its latents are of the same
    tokenizer is seen in the numbers only, when it is loaded.
    """
    if recipe.sample is None or (run := recipe.sample.guidance.autoguidance) is None:
        return None
    if not (weights := generator_weights(run)).is_file():
        return f"autoguidance: {run} holds no finished generator ({weights})"
    resolved = Path(run).expanduser() / "resolved.yaml"
    if not resolved.is_file():
        return f"autoguidance: {run} is no run: it has no resolved.yaml"
    try:
        other = load_recipe(resolved, (), registry).recipe
    except PaeError as error:
        return f"autoguidance: the recipe of {run} does not load: {error}"
    return other_latents(run, latent_shape(other), latent_shape(recipe)) or _other_classes(
        run, other, recipe
    )


def other_latents(run: str | Path, theirs: LatentShape, ours: LatentShape) -> str | None:
    """Say that a generator for latents of another shape cannot guide; None: they have one shape."""
    if theirs == ours:
        return None
    return (
        f"autoguidance: the generator of {run} works on latents of {theirs}, this run's are "
        f"{ours}; name a run that shares this one's tokenizer"
    )


def _other_classes(run: str, other: Recipe, recipe: Recipe) -> str | None:
    """Say that the other generator knows other labels; without labels it knows none."""
    theirs, ours = known_classes(other), known_classes(recipe)
    labelled = other.generator is not None and other.generator.config.conditional
    if not labelled or theirs is None or ours is None or theirs == ours:
        return None
    return (
        f"autoguidance: the generator of {run} knows {theirs} classes, this run's data have "
        f"{ours}; name a run over the same images"
    )
