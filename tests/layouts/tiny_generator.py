"""A small official generator file: golden weights in LightningDiT's layout, and a run for it.

The weights are those of the golden file, which LightningDiT's own code wrote: latents of
4 x 4 x 4, 10 classes. The tokenizer is random, but of that latent shape; its images are nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from layouts import tiny_tokenizer as helpers
from pae_framework.build import build_tokenizer
from pae_framework.interop.tokenizer_weights import released_state
from pae_framework.recipe.load import load_recipe

GOLDEN = Path(__file__).parents[1] / "golden" / "lightningdit_tiny.safetensors"

RECIPE = (
    helpers.RECIPE.replace("channels: 6", "channels: 4")
    .replace("split: train", "split: train, images: 120, classes: 10")
    .replace("split: val", "split: val, images: 40, classes: 10")
    + """\
generator:
  use: lightningdit
  width: 32
  depth: 2
  heads: 4
  patch: 1
  train: {steps: 2, batch_size: 4, keep_steps: [1]}
sample: {count: 4, steps: 2, batch_size: 4, at_steps: [1]}
"""
)


def golden() -> dict[str, Tensor]:
    """Inputs, outputs and weights that LightningDiT's own code gave."""
    return load_file(GOLDEN)


def weights() -> dict[str, Tensor]:
    """The official state dict."""
    found = golden().items()
    return {name.removeprefix("state."): x for name, x in found if name.startswith("state.")}


def write(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """A checkpoint as LightningDiT's training on several GPUs writes it.

    The average is bare; the weights beside it, which are others, carry DDP's prefix twice.
    """
    model = {f"module.module.{name}": tensor + 1 for name, tensor in tensors.items()}
    content = {"model": model, "ema": dict(tensors), "opt": {"state": {}}, "config": {"seed": 0}}
    torch.save(content, path)
    return path


def statistics() -> dict[str, Tensor]:
    """Statistics that can be told from those of any latents here: means 1 to 4, deviations 0.5."""
    return {"mean": torch.arange(1.0, 5).view(1, 4, 1, 1), "std": torch.full((1, 4, 1, 1), 0.5)}


def write_tokenizer(recipe: Path, path: Path) -> Path:
    """A released tokenizer of the recipe's form, random, with its encoder."""
    registry = helpers.registry_with_renamed()
    section = load_recipe(recipe, (), registry).recipe.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = helpers.Renamed(helpers.RenamedConfig(), 16)
        tokenizer = build_tokenizer(section, 16, registry, encoder)
    return helpers.write(released_state(tokenizer), path)
