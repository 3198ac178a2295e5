"""Stage ``tokenizer`` with ``tokenizer.weights``: what it writes, and that it opens no image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from layouts import tiny_tokenizer as helpers
from safetensors.torch import load_file

from pae_framework.errors import CheckpointError, DataError
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.files import read_json
from pae_framework.interop.import_check import keep
from pae_framework.interop.released_layout import read_released
from pae_framework.plugins import Registry
from pae_framework.preflight.requirements import missing_here
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.plan import plan
from pae_framework.stages import tokenizer as stage

FORBIDDEN = "a stage that loads asked for images"


class Context(SimpleNamespace):
    """What a stage is given, less what a stage that only loads has no use for."""

    recorded: dict[str, Any]

    @property
    def train_source(self) -> None:
        pytest.fail(FORBIDDEN)

    test_source = train_source

    def update_record(self, **values: Any) -> None:
        self.recorded.update(values)


@pytest.fixture
def registry() -> Registry:
    return helpers.registry_with_renamed()


@pytest.fixture
def load(tmp_path: Path, registry: Registry):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(helpers.RECIPE, encoding="utf-8")
    return lambda *overrides: load_recipe(recipe, overrides, registry)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return helpers.write(helpers.released(), tmp_path / "ep-last.pt")


def carried_out(loaded: LoadedRecipe, directory: Path) -> Context:
    """The stage's context, after it."""
    directory.mkdir()
    context = Context(
        recipe=loaded.recipe,
        registry=loaded.registry,
        device=torch.device("cpu"),
        directory=directory,
        input=lambda stage: None,
        recorded={},
    )
    stage.run(context)  # type: ignore[arg-type]
    return context


def test_the_files_weights_become_the_runs(load, tmp_path: Path, file: Path) -> None:
    context = carried_out(load(f"tokenizer.weights={file}"), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "tokenizer.safetensors",
        "encoder.safetensors",
        "weights.json",
    }
    assert helpers.same_bits(
        load_file(tmp_path / "out" / "tokenizer.safetensors"), helpers.tokenizer_part()
    )
    encoder = load_file(tmp_path / "out" / "encoder.safetensors")
    value = helpers.encoder_part()[f"encoder.{helpers.SPLIT[2]}"]
    assert torch.equal(encoder["fused.weight"][64:], value)
    assert context.recorded == {"weights": "ep-last.pt"}


def test_it_says_what_the_file_was(load, tmp_path: Path, file: Path) -> None:
    carried_out(load(f"tokenizer.weights={file}"), tmp_path / "out")
    content = file.read_bytes()
    assert read_json(tmp_path / "out" / "weights.json") == {
        "file": "ep-last.pt",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "layout": "tokenizer with encoder",
        "tensors": len(helpers.tokenizer_part()),
        "encoder_tensors": 5,
    }


def test_a_copy_says_what_it_is_a_copy_of(load, tmp_path: Path, file: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    keep(read_released(file), file, first)
    keep(read_released(first), first, second)
    context = carried_out(load(f"tokenizer.weights={second}"), tmp_path / "out")
    found = read_json(tmp_path / "out" / "weights.json")
    assert found["file"] == "second.safetensors"
    assert found["imported_from"] == "ep-last.pt"
    assert found["imported_bytes"] == str(file.stat().st_size)
    assert found["imported_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert context.recorded == {"weights": "ep-last.pt"}


def test_later_stages_take_encoder_and_tokenizer_from_it(load, tmp_path: Path, file: Path) -> None:
    loaded = load(f"tokenizer.weights={file}", "tokenizer.encoder.weights=none")
    context = carried_out(loaded, tmp_path / "out")
    folders = {"tokenizer": tmp_path / "out"}
    context.input, context.require = folders.get, folders.__getitem__
    tokenizer = trained_tokenizer(context)  # type: ignore[arg-type]
    query = helpers.encoder_part()[f"encoder.{helpers.SPLIT[0]}"]
    assert torch.equal(tokenizer.encoder.fused.weight[:32], query)
    assert helpers.same_bits(tokenizer.state_dict(), helpers.tokenizer_part())
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


def test_without_encoder_in_the_file_the_recipes_own_is_asked_for(load, tmp_path: Path) -> None:
    file = helpers.write(helpers.released(with_encoder=False), tmp_path / "t.safetensors")
    context = carried_out(load(f"tokenizer.weights={file}"), tmp_path / "out")
    assert not (tmp_path / "out" / "encoder.safetensors").exists()
    folders = {"tokenizer": tmp_path / "out"}
    context.input, context.require = folders.get, folders.__getitem__
    with pytest.raises(DataError, match="not in the cache"):
        trained_tokenizer(context)  # type: ignore[arg-type]


# --- what is refused ------------------------------------------------------------------------------


def test_a_random_encoder_is_never_put_before_a_trained_tokenizer(load, tmp_path: Path) -> None:
    file = helpers.write(helpers.released(with_encoder=False), tmp_path / "t.pt")
    loaded = load(f"tokenizer.weights={file}", "tokenizer.encoder.weights=none")
    with pytest.raises(CheckpointError, match=r"encoder\.weights` is none: name those"):
        carried_out(loaded, tmp_path / "out")


def test_two_sources_of_the_encoder_are_one_too_many(load, tmp_path: Path, file: Path) -> None:
    own = "tokenizer.encoder={use: tiny_vit, width: 32, heads: 4, train: {steps: 1}}"
    with pytest.raises(CheckpointError, match="but the run trains its own"):
        carried_out(load(f"tokenizer.weights={file}", own), tmp_path / "out")


def test_a_file_that_does_not_fit_leaves_nothing(load, tmp_path: Path) -> None:
    tensors = helpers.released()
    tensors["decoder.mystery"] = torch.zeros(2)
    file = helpers.write(tensors, tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match=r"unexpected: decoder\.mystery"):
        carried_out(load(f"tokenizer.weights={file}"), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_file_that_is_gone_is_known_before_anything_runs(load, tmp_path: Path) -> None:
    loaded = load("tokenizer.weights=gone.pt", "tokenizer.encoder.weights=none")
    found = {problem.path: problem.message for problem in missing_here(loaded)}
    assert "gone.pt" in found["tokenizer.weights"]
    with pytest.raises(DataError, match=r"tokenizer\.weights: there is no file gone\.pt"):
        carried_out(loaded, tmp_path / "out")


# --- the plan -------------------------------------------------------------------------------------


def test_the_stage_depends_on_what_is_in_the_file_not_on_its_name(
    load, tmp_path: Path, file: Path, registry: Registry
) -> None:
    def fingerprint(path: Path) -> str:
        stages = plan(load(f"tokenizer.weights={path}").recipe, registry)
        return next(stage.fingerprint for stage in stages if stage.name == "tokenizer")

    twin = tmp_path / "twin.pt"
    twin.write_bytes(file.read_bytes())
    other = {**helpers.released(), "decoder.decoder_pred.bias": torch.ones(48)}
    assert fingerprint(file) == fingerprint(twin)
    assert fingerprint(file) != fingerprint(helpers.write(other, tmp_path / "other.pt"))
