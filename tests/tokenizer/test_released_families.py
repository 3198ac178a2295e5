"""Released tokenizers with each of the four encoders: into our modules, and back, bit for bit."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts.pae_tokenizers import FULL, FULL_TAIL, Size, Tail, random_tensors, released_shapes
from layouts.tiny_tokenizer import same_bits
from PIL import Image
from safetensors.torch import load_file, save_file

from pae_framework.build import meta_tokenizer
from pae_framework.interop.tokenizer_weights import released_state
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.testing.pytest import Pae

TAIL = Tail(grid=2, latent=4, dam_depth=1, width=12, depth=2, mlp=20, patch=16)
FAMILIES = sorted(FULL)

RECIPE = """\
pae: 1
name: released
runtime: {{threads: 1, device: cpu}}
data:
  image_size: {size}
  train: {{use: image_folder, folder: nowhere, split: train}}
  test: {{use: image_folder, folder: nowhere, split: val}}
tokenizer:
  encoder: {encoder}
  modulator: {{use: dam, depth: {tail.dam_depth}}}
  bottleneck: {{use: sphere, channels: {tail.latent}}}
  decoder:
    use: vit
    width: {tail.width}
    depth: {tail.depth}
    heads: {heads}
    mlp: {tail.mlp}
    patch: 16
  train: {{steps: 1}}
"""


def small(family: str) -> Size:
    """The family's form, narrow: positions of another grid than the tokens have, where learned."""
    full = FULL[family][1]
    return Size(full.patch, width=16, depth=2, mlp=64, grid=3 if full.grid else 0)


def recipe_file(directory: Path, family: str, size: Size | None) -> Path:
    """A recipe of the family's model, at full size or as small as ``size``."""
    encoder: dict[str, Any] = {"use": family, "model": FULL[family][0], "weights": "none"}
    if size is not None:
        grid = {"grid": size.grid} if size.grid else {}
        encoder["size"] = {"width": size.width, "depth": size.depth, "heads": 2, **grid}
    tail = FULL_TAIL if size is None else TAIL
    pixels, heads = 16 * tail.grid, 16 if size is None else 2
    path = directory / "released.yaml"
    text = RECIPE.format(size=pixels, encoder=encoder, tail=tail, heads=heads)
    path.write_text(text.replace("'", ""), encoding="utf-8")
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_tiny_size_is_imported_used_and_exported(
    pae: Pae, family: str, tmp_path: Path
) -> None:
    tensors = random_tensors(released_shapes(family, small(family), TAIL), seed=1)
    save_file(tensors, tmp_path / "t.safetensors")
    recipe, run = recipe_file(tmp_path, family, small(family)), tmp_path / "run"
    pae("import", "pae", tmp_path / "t.safetensors", "--recipe", recipe, "--run-dir", run).ok()
    Image.effect_noise((50, 40), 60).save(tmp_path / "noise.png")
    pae("reconstruct", run, tmp_path / "noise.png").ok()
    with Image.open(run / "reconstructed" / "000_noise.png") as image:
        assert image.size == (32, 32)
    pae("export", "pae", run, tmp_path / "out.pt").ok()
    assert same_bits(torch.load(tmp_path / "out.pt", weights_only=True)["model"], tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_shapes_at_full_size_are_those_of_released_files(
    family: str, tmp_path: Path
) -> None:
    registry = load_registry()
    shapes = released_shapes(family, FULL[family][1], FULL_TAIL)
    assert len(shapes) == FULL[family][2]  # as PAE's own modules have
    recipe = load_recipe(recipe_file(tmp_path, family, None), (), registry).recipe
    state = released_state(
        meta_tokenizer(recipe.tokenizer_section, recipe.data.image_size, registry)
    )
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


@pytest.mark.slow
def test_a_file_of_full_size_is_imported_and_exported(pae: Pae, tmp_path: Path) -> None:
    tensors = random_tensors(released_shapes("dinov2", FULL["dinov2"][1], FULL_TAIL), seed=1)
    torch.save({"model": tensors}, tmp_path / "ep-last.pt")
    del tensors
    gc.collect()
    recipe = recipe_file(tmp_path, "dinov2", None)
    pae(
        "import", "pae", tmp_path / "ep-last.pt", "--recipe", recipe, "--run-dir", tmp_path / "run"
    ).ok()
    pae("export", "pae", tmp_path / "run", tmp_path / "out.safetensors").ok()
    original = torch.load(tmp_path / "ep-last.pt", weights_only=True, mmap=True)["model"]
    assert same_bits(load_file(tmp_path / "out.safetensors"), original)
