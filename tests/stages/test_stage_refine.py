"""Stage ``refine``: an upsampler of the user's own is loaded before the first step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from pae_framework.build import build_encoder
from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.errors import DataError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry
from pae_framework.stages.refine import run
from pae_framework.system.console import PlainConsole
from pae_framework.tensor_files import save_tensors
from pae_framework.training.progress import ProgressLine
from pae_framework.training.task import TrainContext
from pae_framework.world import ONE_PROCESS

CHANGES = [
    "data.image_size=16",
    "tokenizer.encoder.width=16",
    "tokenizer.encoder.depth=2",
    "tokenizer.bottleneck.channels=4",
    "tokenizer.refinement={depth: 1, train: {steps: 1, batch_size: 4}}",
]

HUBCONF = '''
import torch
from torch import nn


class Shuffled(nn.Module):
    """Attention that has nothing to do with the place of a pixel."""

    def __init__(self):
        super().__init__()
        self.seed = nn.Parameter(torch.zeros(1))

        self.cross_decode = nn.Identity()

    def forward(self, image, features, q_chunk_size=None):
        side, tokens = image.shape[-1], features.shape[-1] * features.shape[-2]
        random = torch.Generator().manual_seed(int(self.seed))
        return torch.rand(len(features), tokens, side, side, generator=random)


def anyup(pretrained):
    assert not pretrained
    return Shuffled()
'''


class Noise(DataSource):
    class_names = ("a",)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> LabeledImage:
        random = torch.Generator().manual_seed(index)
        size = (3, self.image_size, self.image_size)
        return LabeledImage(torch.randint(256, size, generator=random, dtype=torch.uint8), 0)


def refined(directory: Path, registry: Registry, *changes: str) -> dict[str, torch.Tensor]:
    """What the stage leaves, from the same encoder each time."""
    recipe = load_recipe("quickstart", [*CHANGES, *changes], registry).recipe
    encoder = directory.parent / "encoder"
    progress = lambda total, done: ProgressLine("t", total, done, PlainConsole(quiet=True))  # noqa: E731
    context = SimpleNamespace(
        recipe=recipe,
        registry=registry,
        device=torch.device("cpu"),
        directory=directory,
        world=ONE_PROCESS,
        train_source=Noise(DataSourceConfig(), 16),
        seed=lambda train: 7,
        print_length=lambda train, images: train.total_steps(images),
        recorded=lambda key: {},
        update_record=lambda **values: None,
        reads=lambda stage: stage == "encoder",
        file=lambda stage, name: encoder / name,
        train_context=lambda train, images: TrainContext(
            directory, torch.device("cpu"), "refine", 7, progress
        ),
    )
    if not encoder.exists():
        fresh = build_encoder(recipe.tokenizer.encoder, 16, registry)
        save_tensors(fresh.state_dict(), encoder / "encoder.safetensors")
    run(context)  # type: ignore[arg-type]
    return load_file(directory / "weights.safetensors")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def test_the_reference_comes_from_the_upsampler(tmp_path: Path, registry: Registry) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "hubconf.py").write_text(HUBCONF)
    torch.save({"seed": torch.zeros(1)}, tmp_path / "weights.pth")
    anyup = [
        "tokenizer.refinement.upsampler=anyup",
        f"tokenizer.refinement.anyup={{checkout: {checkout}, weights: {tmp_path}/weights.pth}}",
    ]
    plain = refined(tmp_path / "plain", registry)
    shuffled = refined(tmp_path / "shuffled", registry, *anyup)
    assert plain.keys() == shuffled.keys()  # nothing of it is kept
    assert not torch.equal(plain["projector.1.weight"], shuffled["projector.1.weight"])


def test_without_its_checkout_no_step_is_made(tmp_path: Path, registry: Registry) -> None:
    anyup = [
        "tokenizer.refinement.upsampler=anyup",
        "tokenizer.refinement.anyup={checkout: nowhere, weights: nowhere.pth}",
    ]
    with pytest.raises(DataError, match="nowhere"):
        refined(tmp_path / "run", registry, *anyup)
    assert not (tmp_path / "run").exists()


def test_in_bf16_frozen_weights_are_cast_and_results_keep_their_bits(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    bf16 = "tokenizer.refinement.train.precision=bf16"
    cast = refined(tmp_path / "cast", registry, bf16)
    monkeypatch.setattr("pae_framework.stages.refine.cast_frozen", lambda *a: calls.append(a))
    plain = refined(tmp_path / "plain", registry, bf16)
    assert len(calls) == 1
    assert all(torch.equal(cast[name], value) for name, value in plain.items())
    refined(tmp_path / "float32", registry)
    assert len(calls) == 1
