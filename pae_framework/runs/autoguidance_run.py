"""Checks of the run or file named in ``sample.guidance.autoguidance``. No torch."""

from __future__ import annotations

from pathlib import Path

from pae_framework.config import LatentShape
from pae_framework.errors import PaeError
from pae_framework.recipe.derived import known_classes, latent_shape
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import generator_weights
from pae_framework.registry import Registry


def autoguidance_problem(recipe: Recipe, registry: Registry) -> str | None:
    """Explain why the named run or file cannot guide this recipe's generator.

    None if no problem is found or nothing is named. Tensors of a file are not read. Whether both
    generators were trained on latents of one tokenizer is not checked.
    """
    if recipe.sample is None or (run := recipe.sample.guidance.autoguidance) is None:
        return None
    path = Path(run).expanduser()
    if path.is_file():
        return _problem_without_run(recipe, run)
    if not path.exists():
        return f"there is no run or weights file {run}"
    if not (weights := generator_weights(run)).is_file():
        return f"{run} holds no finished generator: {weights} does not exist"
    resolved = path / "resolved.yaml"
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


def _problem_without_run(recipe: Recipe, file: str) -> str | None:
    """The network of a weights file is described in this recipe, and its statistics are ours."""
    if recipe.guide is None:
        return (
            f"{file} is a weights file, and the recipe does not describe its network; set for "
            "example guide={use: dit_dh, preset: S}"
        )
    stated, classes = recipe.guide.config.stated_classes(), known_classes(recipe)
    if recipe.guide.config.conditional and None not in (stated, classes) and stated != classes:
        return f"`guide` has {stated} classes, but this run has {classes}"
    return None


def latent_mismatch(run: str | Path, theirs: LatentShape, ours: LatentShape) -> str | None:
    """A message if the generator of ``run`` was trained on latents of another shape."""
    if theirs == ours:
        return None
    return f"the latents of {run} have shape {theirs}, but those of this run have {ours}"
