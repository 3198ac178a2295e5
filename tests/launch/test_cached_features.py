"""Runs with cached features: the same trainings, and each image is encoded once for all of them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pae_framework.errors import DataError, StoppedError
from pae_framework.execution.cached_features import cached_features
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.locks import holding, is_held
from pae_framework.system.console import PlainConsole
from pae_framework.world import World

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
    LocalLauncher(PlainConsole(quiet=True)).run(loaded, run, "pae run", until="tokenizer")
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


# --- several runs and processes -------------------------------------------------------------------


def the_folder(run: Path) -> Path:
    """The folder of the features that were made last."""
    return max((run / "stages" / "features").iterdir(), key=lambda folder: folder.stat().st_mtime)


def test_a_run_waits_for_another_that_computes_the_same(
    tmp_path: Path, recipe: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run holds the folder, and finishes while this one waits."""
    store = trained(tmp_path / "first", recipe, CACHED) / "stages"
    folder = the_folder(tmp_path / "first")
    kept = tmp_path / "kept"
    folder.rename(kept)
    folder.mkdir()
    other, waited = ExitStack(), []
    other.enter_context(holding(folder))

    def wait(path: Path, waiting: Callable[[str], None] | None = None) -> Any:
        if path != folder:
            return holding(path, waiting)

        def finish(holder: str) -> None:
            waited.append(holder)
            waiting(holder)
            for shard in kept.glob("*.safetensors"):
                shard.rename(folder / shard.name)
            other.close()

        return holding(path, finish)

    monkeypatch.setattr("pae_framework.execution.cached_features.holding", wait)
    encoded.clear()
    loaded = load_recipe(recipe, [*SHORT, CACHED, "tokenizer.train.lr=3e-3"], load_registry())
    second = RunDirectory.at(tmp_path / "second", store)
    LocalLauncher(PlainConsole(quiet=True)).run(loaded, second, "pae run", until="tokenizer")
    assert len(waited) == 1
    assert encoded == []  # what the other computed is read
    assert not is_held(folder)


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path: Path, recipe: Path) -> None:
    run = trained(tmp_path, recipe, CACHED)
    left = the_folder(run) / ".features_shard000.safetensors.999999999.new"
    left.write_bytes(b"half")
    trained(tmp_path, recipe, CACHED, "tokenizer.train.lr=4e-3")
    assert not left.exists()


class Waits(World):
    """A process that is not the main one; every collective is an error."""

    rank, size = 1, 2

    def __init__(self, stopped: bool) -> None:
        self._stopped = stopped

    def on_main(self, work: Callable[[], Any]) -> Any:
        return self._stopped  # what the main process found; the first answers are not read

    def any(self, flag: bool) -> bool:
        raise AssertionError("waits in a collective for the work of the main process")

    sum = broadcast = any  # type: ignore[assignment]


def test_other_processes_wait_outside_of_collectives(
    run: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "pae_framework.stages.tokenizer.cached_features", lambda *given: found.append(given)
    )
    changed = load_recipe(recipe, [*SHORT, CACHED, "tokenizer.train.lr=5e-3"], load_registry())
    LocalLauncher(PlainConsole(quiet=True)).run(
        changed, RunDirectory.at(run), "pae run", until="tokenizer"
    )
    ((context, settings, encoder),) = found
    rows = cached_features(replace(context, world=Waits(False)), settings, encoder)
    assert rows is not None
    assert len(rows) == 40
    with pytest.raises(StoppedError):
        cached_features(replace(context, world=Waits(True)), settings, encoder)
