"""A small valid recipe made of built-in components, and the types of this folder's fixtures."""

from collections.abc import Callable
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.plan import plan
from pae_framework.system.files import write_json

SMALL = """\
pae: 1
name: small
data:
  image_size: 8
  train: digits
  test: {use: digits, split: test}
extractor: {use: small_cnn, train: {steps: 10}}
tokenizer:
  encoder: {use: tiny_vit, patch: 2, width: 32, heads: 2, train: {steps: 10, lr: 1e-4}}
  modulator: {use: dam, depth: 1}
  bottleneck: {use: sphere, channels: 8}
  decoder: {use: vit, width: 32, depth: 1, heads: 2, patch: 2}
  regularizers:
    ssr: {weight: 0.2}
    scr:
  refinement: {train: {steps: 10}}
  train: {steps: 10, clip: 0.5}
generator:
  use: lightningdit
  depth: 1
  width: 32
  heads: 2
  patch: 1
  train: {steps: 10}
sample: {count: 10, at_steps: [10]}
evaluate:
  reconstruction:
  generation:
  manifold:
"""
"""Line 9 holds the encoder, 17 the tokenizer's training."""

Load = Callable[..., LoadedRecipe]
Problems = Callable[..., list[Problem]]


def unfinished_only(loaded: LoadedRecipe, folder: Path, *unfinished: str) -> Path:
    """A folder of stages in which all stages of a recipe are done but those named."""
    stages_dir = folder / f"all but {' '.join(unfinished)}"
    for stage in plan(loaded.recipe, loaded.registry):
        if stage.name not in unfinished:
            write_json(stages_dir / stage.folder / "stage.json", {"state": "done"})
    return stages_dir


def unstated(problem: Problem, *facts: str) -> list[str]:
    """Those of the facts (keys, values found, remedies) that a problem does not state."""
    text = str(problem)
    return [fact for fact in facts if fact not in text]
