"""A frozen encoder is the same network in every process and stage; if not, the run stops."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizer_fakes import FakeEncoder, FakeEncoderConfig
from torch import nn

from pae_framework.errors import PluginError
from pae_framework.execution.artifacts import frozen_encoder
from pae_framework.execution.context import StageContext
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.registry import ComponentSpec, Plugin
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.opened import open_run
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.tensor_files import weights_digest

CHANGES = (
    "tokenizer.refinement=null",
    "tokenizer.regularizers=null",
    "tokenizer.reconstruction={l1: 1}",
    "tokenizer.train.steps=1",
    "extractor.train.steps=1",
)
CLOCK = itertools.count()
"""Different at each construction, as the time is."""


class FromTorch(FakeEncoder):
    """Its random weights come from torch's global state, as those of most modules."""


class FromNumPy(FakeEncoder):
    def __init__(self, config: FakeEncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.register_buffer("offset", torch.tensor(np.random.rand(config.width)).float())


class FromPython(FakeEncoder):
    def __init__(self, config: FakeEncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.register_buffer("offset", torch.tensor(random.random()), persistent=False)


class FromTime(FakeEncoder):
    def __init__(self, config: FakeEncoderConfig, image_size: int):
        super().__init__(config, image_size)
        torch.manual_seed(next(CLOCK))
        nn.init.normal_(self.mix.weight)


class LoadedAtRandom(FakeEncoder):
    def load_pretrained(self) -> None:
        nn.init.normal_(self.mix.weight, generator=torch.Generator().manual_seed(next(CLOCK)))


class BufferFromTime(FakeEncoder):
    def __init__(self, config: FakeEncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.register_buffer("offset", torch.tensor(next(CLOCK)), persistent=False)


def load(recipe: Path, encoder: type, *overrides: str) -> LoadedRecipe:
    registry = load_registry()
    names = (f"{__name__}:{encoder.__name__}", "tokenizer_fakes:FakeEncoderConfig")
    plugin = Plugin("acme", __name__, "acme-kit", "0")
    registry.add(ComponentSpec("encoder", "random", *names, "random weights", plugin))
    use = "tokenizer.encoder={use: random, width: 48, train: null}"
    return load_recipe(recipe, (*CHANGES, "tokenizer.encoder=null", use, *overrides), registry)


def run(recipe: Path, folder: Path, encoder: type, until: str, *overrides: str) -> RunDirectory:
    directory = RunDirectory.at(folder / "run")
    torch.rand(next(CLOCK) % 7 + 1)  # another state than in any earlier stage
    loaded = load(recipe, encoder, *overrides)
    LocalLauncher(PlainConsole(quiet=True)).run(loaded, directory, "pae run", until=until)
    return directory


def digest(run: RunDirectory, stage: str) -> str:
    record = json.loads((run.path / stage / "stage.json").read_text(encoding="utf-8"))
    return str(record["encoder_digest"])


@pytest.mark.parametrize("encoder", [FromTorch, FromNumPy, FromPython])
def test_random_weights_are_the_same_in_every_stage(
    encoder: type, tiny_recipe: Path, tmp_path: Path
) -> None:
    run(tiny_recipe, tmp_path, encoder, "tokenizer")
    directory = run(tiny_recipe, tmp_path, encoder, "latents")  # a later process
    assert digest(directory, "tokenizer") == digest(directory, "latents")


@pytest.mark.parametrize("encoder", [FromTime, LoadedAtRandom, BufferFromTime])
def test_other_weights_than_in_an_earlier_stage_stop_the_run(
    encoder: type, tiny_recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(PluginError) as caught:
        run(tiny_recipe, tmp_path, encoder, "latents")
    message = str(caught.value)
    for fact in ("plugin acme (acme-kit)", "encoder:random", encoder.__name__, "stage tokenizer"):
        assert fact in message
    assert caught.value.exit_code == 3


def test_other_weights_than_before_an_interruption_stop_the_stage(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    directory = run(tiny_recipe, tmp_path, FromTime, "tokenizer")
    StageRecord(directory.path / "tokenizer").update(state="stopped")
    with pytest.raises(PluginError, match="stage tokenizer"):
        run(tiny_recipe, tmp_path, FromTime, "tokenizer")


def test_weights_that_no_stage_trains_do_not_depend_on_the_seed_of_the_recipe(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """Members of a sweep over seeds may share the stages before."""
    digests = {
        digest(
            run(tiny_recipe, tmp_path / str(seed), FromTorch, "tokenizer", f"seed={seed}"),
            "tokenizer",
        )
        for seed in (1, 2)
    }
    assert len(digests) == 1


def test_a_finished_run_is_checked_too(tiny_recipe: Path, tmp_path: Path) -> None:
    directory = run(tiny_recipe, tmp_path, FromTime, "tokenizer")
    registry = load(tiny_recipe, FromTime).registry
    opened = open_run(directory.path, registry)
    context = StageContext.of_finished_run(opened, "tokenizer", PlainConsole(quiet=True))
    with pytest.raises(PluginError, match="stage tokenizer"):
        frozen_encoder(context)


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.weight.data.add_(1e-6),
        lambda module: module.double(),
        lambda module: module.register_buffer("more", torch.ones(1), persistent=False),
        lambda module: setattr(module, "bias", None),
    ],
)
def test_the_digest_sees_every_change(change: Callable[[nn.Module], object]) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    before = weights_digest(module)
    assert weights_digest(module) == before
    change(module)
    assert weights_digest(module) != before


def test_the_digest_takes_all_dtypes_and_strides() -> None:
    module = nn.Module()
    module.register_buffer("bf16", torch.ones(2, 3).bfloat16().t())
    module.register_buffer("flag", torch.tensor(True))
    module.register_buffer("empty", torch.ones(0))
    module.register_buffer("number", torch.tensor(3))
    assert len(weights_digest(module)) == 16
