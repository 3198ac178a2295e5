"""A generator trained on a folder of latents is the one trained on the run's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import read_json

WITHOUT_IMAGES = ("extractor=null", "sample=null", "evaluate=null", "data.flip=true")
SHORT = (*WITHOUT_IMAGES, "tokenizer.encoder.train.steps=1", "tokenizer.train.steps=1")


def trained(recipe: Path, run: Path, *overrides: str) -> dict[str, bytes]:
    """Weights of the generator, as bytes."""
    return trained_by(recipe, run, *SHORT, *overrides)


def trained_by(recipe: Path, run: Path, *overrides: str) -> dict[str, bytes]:
    loaded = load_recipe(recipe, overrides, load_registry())
    launcher = LocalLauncher(PlainConsole(quiet=True))
    launcher.run(loaded, RunDirectory.at(run), "pae run", until="generator")
    weights = load_file(run / "generator" / "weights.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def test_same_bits_and_unchanged_folder(tmp_path: Path, tiny_recipe: Path) -> None:
    run = tmp_path / "run"
    own = trained(tiny_recipe, run)
    first = (run / "latents").resolve()
    folder = first.rename(tmp_path / "elsewhere")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert trained(tiny_recipe, run, f"latents.folder={folder}") == own
    second = (run / "latents").resolve()
    assert second != first
    assert not list(second.glob("*shard*"))
    assert read_json(second / "latents.json")["folder"] == str(folder)
    only = f"tokenizer={{use: latents, folder: {folder}}}"  # of the first run's tokenizer
    assert trained_by(tiny_recipe, tmp_path / "only", *WITHOUT_IMAGES, only) == own
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.slow
def test_latents_encoded_in_training_are_those_that_are_stored(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run, views = tmp_path / "run", ("tokenizer.train.crop_from=24", "tokenizer.train.flip=false")
    stored = trained(tiny_recipe, run, *views)
    encoded = trained(tiny_recipe, run, *views, "latents.stored=false")
    assert not list((run / "latents").glob("*shard*"))
    for name, weights in stored.items():
        one, two = (
            torch.frombuffer(bytearray(x), dtype=torch.float32) for x in (weights, encoded[name])
        )
        torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
