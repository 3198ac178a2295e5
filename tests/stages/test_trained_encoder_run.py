"""Runs whose tokenizer trains its encoder: which weights it starts from, and where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from pae_framework.errors import UsageError
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.interop.tokenizer_weights import released_state
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.opened import open_run
from pae_framework.system.console import PlainConsole
from pae_framework.tensor_files import save_tensors

CHANGES = (
    "tokenizer.train_encoder=true",
    "tokenizer.refinement=null",
    "tokenizer.regularizers=null",
    "tokenizer.reconstruction={l1: 1, perceptual: {weight: 0}}",
    "tokenizer.train={steps: 2, batch_size: 8, log_every: 1}",
    "tokenizer.encoder.train.steps=1",
    "sample=null",
    "generator=null",
    "evaluate={reconstruction: {}}",
)
FROM_SCRATCH = "tokenizer.encoder.train=null"


def run(recipe: Path, folder: Path, until: str, *overrides: str) -> RunDirectory:
    directory = RunDirectory.at(folder)
    loaded = load_recipe(recipe, (*CHANGES, *overrides), load_registry())
    LocalLauncher(PlainConsole(quiet=True)).run(loaded, directory, "pae run", until=until)
    return directory


def encoder_of(directory: RunDirectory) -> dict[str, Tensor]:
    tensors = load_file(directory.path / "tokenizer" / "tokenizer.safetensors")
    return {
        name.removeprefix("encoder."): x
        for name, x in tensors.items()
        if name.startswith("encoder.")
    }


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def test_it_starts_from_the_weights_of_its_stage(tiny_recipe: Path, tmp_path: Path) -> None:
    """Two steps of Adam with learning rate 1e-6 move no weight by more than about 2e-6."""
    directory = run(tiny_recipe, tmp_path / "run", "tokenizer", "tokenizer.train.lr=1e-6")
    before = load_file(directory.path / "encoder" / "encoder.safetensors")
    assert 0 < distance(encoder_of(directory), before) < 1e-5


def test_from_scratch_it_depends_on_the_seed_of_the_tokenizer(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    weights = [
        encoder_of(
            run(
                tiny_recipe,
                tmp_path / name,
                "tokenizer",
                FROM_SCRATCH,
                f"tokenizer.train.seed={seed}",
            )
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert distance(weights[0], weights[1]) == 0
    assert distance(weights[0], weights[2]) > 0


@pytest.fixture
def finished(tiny_recipe: Path, tmp_path: Path) -> StageContext:
    directory = run(
        tiny_recipe, tmp_path / "run", "evaluate", FROM_SCRATCH, "tokenizer.train.ema=0.5"
    )
    opened = open_run(directory.path, load_registry())
    return StageContext.of_finished_run(opened, "tokenizer", PlainConsole(quiet=True))


def test_later_stages_use_the_trained_encoder_and_files_hold_it(
    finished: StageContext, tiny_recipe: Path, tmp_path: Path
) -> None:
    tokenizer = trained_tokenizer(finished)
    trained = encoder_of(RunDirectory.at(tmp_path / "run"))
    assert distance(dict(tokenizer.encoder.state_dict()), trained) == 0
    assert not any(weight.requires_grad for weight in tokenizer.parameters())
    with pytest.raises(UsageError):
        released_state(tokenizer, with_encoder=False)

    save_tensors(released_state(tokenizer), tmp_path / "exported.safetensors")
    given = f"tokenizer.weights={tmp_path / 'exported.safetensors'}"
    imported = run(tiny_recipe, tmp_path / "imported", "evaluate", FROM_SCRATCH, given)
    assert distance(encoder_of(imported), trained) == 0


def test_a_training_starts_from_given_weights(
    finished: StageContext, tiny_recipe: Path, tmp_path: Path
) -> None:
    """Two steps of Adam with learning rate 1e-6 move no weight by more than about 2e-6."""
    before = load_file(tmp_path / "run" / "tokenizer" / "tokenizer.safetensors")
    file = tmp_path / "given.safetensors"
    save_tensors(before, file)
    changes = (FROM_SCRATCH, f"tokenizer.initial_weights={file}", "tokenizer.train.lr=1e-6")
    directory = run(tiny_recipe, tmp_path / "second", "tokenizer", *changes)
    after = load_file(directory.path / "tokenizer" / "tokenizer.safetensors")
    assert 0 < distance(after, before) < 1e-5
    source = json.loads((directory.path / "tokenizer" / "initial_weights.json").read_text())
    assert source["file"] == "given.safetensors"
