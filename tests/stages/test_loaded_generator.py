"""Files of generators: whose weights fit, and how classes are known without images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from layouts import tiny_generator as official
from layouts import tiny_tokenizer as helpers
from PIL import Image
from torch import Tensor, nn

from pae_framework.build import META
from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.errors import CheckpointError, DataError
from pae_framework.execution.artifacts import untrained_generator
from pae_framework.execution.context import StageContext
from pae_framework.interop.generator_weights import match_state_dict
from pae_framework.interop.provenance import require_file
from pae_framework.recipe.load import load_recipe
from pae_framework.tensor_files import save_tensors
from pae_framework.weight_files import read_weights

LATENT = LatentShape(2, 2)
FILE = Path("weights.pt")


class Plain(Generator):
    """A generator nobody published weights of."""

    def __init__(self, config: GeneratorConfig, latent: LatentShape, num_classes: int):
        super().__init__(config, latent, num_classes)
        self.table = nn.Embedding(num_classes + 1, latent.channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x + self.table(y)[:, :, None, None]


class Renamed(Plain):
    """One whose official files call the table otherwise, and keep it transposed."""

    def from_official(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if list(tensors) != ["labels"]:
            raise CheckpointError(f"expected labels, found {', '.join(tensors)}")
        return {"table.weight": tensors["labels"].T}

    def to_official(self) -> dict[str, Tensor]:
        return {"labels": self.table.weight.T}


def plain(cls: type[Plain] = Plain, seed: int = 0) -> Plain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(GeneratorConfig(), LATENT, 3)


# --- whose weights fit ----------------------------------------------------------------------------


def test_a_generator_without_official_files_takes_its_own() -> None:
    own = dict(plain().state_dict())
    assert helpers.same_bits(match_state_dict(own, plain(seed=1), FILE), own)
    with pytest.raises(CheckpointError, match=r"weights\.pt(.|\n)*missing: table"):
        match_state_dict({}, plain(), FILE)


def test_a_generator_with_other_official_names_takes_both() -> None:
    own = plain(Renamed)
    for tensors in (own.to_official(), dict(own.state_dict())):
        assert helpers.same_bits(
            match_state_dict(tensors, plain(Renamed, 1), FILE), own.state_dict()
        )
    with pytest.raises(CheckpointError, match=r"weights\.pt: expected labels, found other"):
        match_state_dict({"other": torch.zeros(1)}, plain(Renamed), FILE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    tensors = {"table.weight": torch.full((4, 2), value)}
    with pytest.raises(CheckpointError, match=r"weights\.pt.* table\.weight"):
        match_state_dict(tensors, plain(), FILE)


def test_the_average_is_taken_and_wrappers_come_off(tmp_path: Path) -> None:
    file = official.write(official.weights(), tmp_path / "0000001.pt")
    found = read_weights(file, "average")
    assert found.entry == "ema"
    assert helpers.same_bits(found.tensors, official.weights())
    content = torch.load(file, weights_only=True)
    del content["ema"]
    torch.save(content, file)
    found = read_weights(file, "average")
    assert found.entry == "model"
    key = "final_layer.linear.bias"
    assert torch.equal(found.tensors[key], official.weights()[key] + 1)


def test_a_file_that_is_gone_is_named_with_its_key() -> None:
    with pytest.raises(DataError, match=r"generator\.weights.*gone\.pt"):
        require_file("gone.pt", "generator.weights")


def test_own_weights_of_a_run_are_taken_too(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_tensors(plain().state_dict(), file)
    tensors = read_weights(file, "average").tensors
    assert helpers.same_bits(match_state_dict(tensors, plain(seed=1), file), plain().state_dict())


# --- classes --------------------------------------------------------------------------------------


def stage_context(tmp_path: Path, stated: str) -> StageContext:
    """A context whose training images are a folder, with what the recipe states of it."""
    return context_of(tmp_path, f"{{use: image_folder, folder: {tmp_path / 'images'}{stated}}}")


def context_of(tmp_path: Path, source: str) -> StageContext:
    """A context with a source of training images."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(official.RECIPE, encoding="utf-8")
    loaded = load_recipe(recipe, [f"data.train={source}"], helpers.registry_with_renamed())
    rest: Any = SimpleNamespace()
    return StageContext(loaded.recipe, loaded.registry, rest, rest, {}, rest, rest)


def write_images(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(folder / name / "0.png")


def test_classes_are_named_by_their_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    for stated in ("", ", images: 2, classes: 2"):
        context = stage_context(tmp_path, stated)
        assert list(context.class_names) == ["cat", "dog"]
        assert context.num_classes == 2


def test_without_images_the_recipe_says_how_many_there_are(tmp_path: Path) -> None:
    context = stage_context(tmp_path, ", images: 30, classes: 3")
    assert list(context.class_names) == ["0", "1", "2"]
    assert context.num_classes == 3
    silent = stage_context(tmp_path, ", classes: 3")
    with pytest.raises(DataError, match="images"):
        len(silent.class_names)


@pytest.mark.parametrize(
    ("source", "classes"),
    [
        ("{use: digits}", 10),
        ("{use: shapes, count: 12}", None),
        ("{use: image_folder, folder: images}", 2),
    ],
)
def test_images_that_are_asked_for_classes_are_read_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, classes: int | None
) -> None:
    """Only the network that weights are compared with is on the meta device."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images")
    context = context_of(tmp_path, source)
    model = untrained_generator(context, META)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert context.train_source[0].image.device.type == "cpu"
    assert model.num_classes == len(context.train_source.class_names)
    assert classes in (None, model.num_classes)
