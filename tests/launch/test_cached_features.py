"""Runs with cached features: the same trainings, and each image is encoded once for all of them."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from pae_framework.errors import DataError
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory

TIMES = ("images_per_s", "data_wait")
CACHED = "tokenizer.cache_features=true"
SHORT = (
    *("extractor=null", "sample=null", "evaluate=null"),
    "data.train={use: shapes, count: 40}",
    "data.test={use: shapes, count: 40, split: test}",
    "data.test_images=null",
    "tokenizer.reconstruction.perceptual.weight=0",  # it runs the encoder on its own
    *(f"tokenizer{part}.train.steps=3" for part in ("", ".encoder", ".refinement")),
    "tokenizer.adversarial={discriminator: {use: patchgan, layers: 1, width: 4}}",
)


def trained(folder: Path, recipe: Path, *changes: str) -> Path:
    """A run up to its tokenizer."""
    loaded = load_recipe(recipe, [*SHORT, *changes], load_registry())
    run = RunDirectory.at(folder)
    LocalLauncher(Console(quiet=True)).run(loaded, run, "pae run", until="tokenizer")
    return folder


def losses(run: Path, stage: str) -> list[dict[str, float]]:
    lines = (run / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in TIMES}
        for line in lines
    ]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that the frozen encoder gets, call by call."""
    from pae_encoders.tiny_vit import TinyViT

    seen: list[int] = []
    forward = TinyViT.forward

    def counted(self, pixels):
        if not self.training:
            seen.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(TinyViT, "forward", counted)
    return seen


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(tiny_text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    """A finished run with cached features."""
    return trained(tmp_path_factory.mktemp("run"), recipe, CACHED)


@pytest.mark.parametrize("flip", [pytest.param(False, marks=pytest.mark.slow), True])
def test_losses_are_those_without_and_each_view_is_encoded_once(
    tmp_path: Path, recipe: Path, encoded: list[int], flip: bool
) -> None:
    changes = (f"data.flip={str(flip).lower()}",)
    plain = trained(tmp_path / "plain", recipe, *changes)
    encoded.clear()
    cached = trained(tmp_path / "cached", recipe, *changes, CACHED)
    assert encoded == ([40, 40] if flip else [40])
    for stage in ("refine", "tokenizer"):
        ours, theirs = losses(cached, stage), losses(plain, stage)
        assert len(ours) == len(theirs) == 3
        for one, two in zip(ours, theirs, strict=True):
            assert one == pytest.approx(two, rel=1e-4, abs=1e-6), stage
        assert (cached / stage).resolve().name == (plain / stage).resolve().name  # fingerprints
    (folder,) = (cached / "stages" / "features").iterdir()
    with safe_open(folder / "features_shard000.safetensors", "pt") as file:
        assert set(file.keys()) == ({"tokens", "tokens_flip"} if flip else {"tokens"})
        assert file.get_tensor("tokens").shape == (40, 16, 48)
    assert not (plain / "stages" / "features").exists()


def test_a_later_training_reads_them_and_another_encoder_or_precision_has_its_own(
    run: Path, recipe: Path, encoded: list[int]
) -> None:
    folders = run / "stages" / "features"
    assert len(list(folders.iterdir())) == 1
    trained(run, recipe, CACHED, "tokenizer.train.lr=1e-3")
    assert encoded == []
    trained(run, recipe, CACHED, "tokenizer.train.precision=bf16")
    assert len(list(folders.iterdir())) == 2
    trained(run, recipe, CACHED, "tokenizer.encoder.train.lr=1e-3")
    assert len(list(folders.iterdir())) == 3


def test_a_damaged_shard_is_computed_again(run: Path, recipe: Path) -> None:
    shard = min((run / "stages" / "features").glob("*/*.safetensors"), key=os.path.getmtime)
    before = load_file(shard)["tokens"].clone()
    shard.write_bytes(shard.read_bytes()[:-8])
    trained(run, recipe, CACHED, "tokenizer.train.lr=2e-3", "tokenizer.noise=0.5")
    assert torch.equal(load_file(shard)["tokens"], before)


def test_random_views_are_refused(run: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pae_datasets.shapes import Shapes
    from pae_framework.contracts import LabeledImage

    read, views = Shapes.__getitem__, itertools.count(1)

    def cropped(self, index):
        found = read(self, index)
        return LabeledImage(found.image.roll(next(views), -1), found.label)

    monkeypatch.setattr(Shapes, "__getitem__", cropped)
    with pytest.raises(DataError, match=r"tokenizer\.cache_features") as refused:
        trained(run, recipe, CACHED, "tokenizer.noise=0.1")
    assert "image 0" in str(refused.value)
