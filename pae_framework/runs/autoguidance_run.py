"""Checks of the run named in ``sample.guidance.autoguidance``, from its directory. No torch."""

from __future__ import annotations

from pathlib import Path

from pae_framework.config import LatentShape
from pae_framework.errors import PaeError
from pae_framework.plugins import Registry
from pae_framework.recipe.derived import known_classes, latent_shape
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import generator_weights


def autoguidance_problem(recipe: Recipe, registry: Registry) -> str | None:
    """Explain why the named run cannot guide this recipe's generator.

    None if no problem is found or no run is named. Whether both generators were trained on latents
    of one tokenizer is not checked.
    """
    if recipe.sample is None or (run := recipe.sample.guidance.autoguidance) is None:
        return None
    if not (weights := generator_weights(run)).is_file():
        return f"{run} holds no finished generator: {weights} does not exist"
    resolved = Path(run).expanduser() / "resolved.yaml"
    if not resolved.is_file():
        return f"{run} is not a run directory: it has no resolved.yaml"
    try:
        other = load_recipe(resolved, (), registry).recipe
    except PaeError as error:
        return f"the recipe of {run} does not load: {error}"
    if mismatch := latent_mismatch(run, latent_shape(other), latent_shape(recipe)):
        return mismatch
    theirs, ours = known_classes(other), known_classes(recipe)
    labeled = other.generator is not None and other.generator.config.conditional
    if labeled and theirs is not None and ours is not None and theirs != ours:
        return f"the generator of {run} has {theirs} classes, but this run has {ours}"
    return None


def latent_mismatch(run: str | Path, theirs: LatentShape, ours: LatentShape) -> str | None:
    """A message if the generator of ``run`` was trained on latents of another shape."""
    if theirs == ours:
        return None
    return f"the latents of {run} have shape {theirs}, but those of this run have {ours}"
