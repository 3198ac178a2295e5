"""Latents that are encoded as the generator trains: the same latents, losses and weights."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.data.data_settings import LatentsSettings
from pae_framework.data.read_ahead import read_ahead
from pae_framework.data.statistics import statistics_of
from pae_framework.errors import StoppedError
from pae_framework.execution.unstored_latents import encoded_batches, latent_encoder
from pae_framework.flow.flow_settings import FlowSettings
from pae_framework.flow.matching import FlowObjective
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.stage_table import STAGES

CPU = torch.device("cpu")


class Noise(DataSource):
    """Random images of 4 px, each the same at every read."""

    class_names = ("a", "b")

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> LabeledImage:
        random = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 4, 4), generator=random, dtype=torch.uint8)
        return LabeledImage(image, index % 2)


class Scaling(nn.Module):
    """A tokenizer whose latents are the image times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def encode(self, images: Tensor) -> Any:
        return SimpleNamespace(latents=self.weight * images)


def encoded(indices: list[int], shown: list[int] | None = None, **settings: Any) -> list[Tensor]:
    latents = LatentsSettings(stored=False, batch_size=4, **settings)
    progress = SimpleNamespace(update=[].append if shown is None else shown.append)
    context: Any = SimpleNamespace(
        train_source=Noise(DataSourceConfig(), 4),
        device=CPU,
        recipe=SimpleNamespace(latents=latents),
        progress=lambda total: nullcontext(progress),
    )
    tokenizer: Any = Scaling()
    encode = latent_encoder(tokenizer, latents, CPU)
    return list(encoded_batches(context, encode, torch.tensor(indices)))


def images(indices: list[int]) -> Tensor:
    source = Noise(DataSourceConfig(), 4)
    return torch.stack([source[index].image for index in indices]).float() / 255


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_latents_of_their_images(workers: int) -> None:
    chosen, shown = [7, 0, 10, 3, 3], list[int]()
    found = encoded(chosen, shown, workers=workers)
    assert [len(batch) for batch in found] == [4, 1]
    assert torch.equal(torch.cat(found), 3 * images(chosen))
    assert shown == [4, 5]


def test_one_pool_of_workers_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []

    def counted(*args: Any) -> Any:
        pools.append(args)
        return read_ahead(*args)

    monkeypatch.setattr("pae_framework.execution.unstored_latents.read_ahead", counted)
    encoded(list(range(11)))
    assert len(pools) == 1


def test_a_signal_stops_before_the_next_batch() -> None:
    class Signal(list[int]):
        def append(self, done: int) -> None:
            super().append(done)
            os.kill(os.getpid(), signal.SIGTERM)

    shown = Signal()
    with pytest.raises(StoppedError, match="4 of 11"):
        encoded(list(range(11)), shown)
    assert shown == [4]


def test_statistics_are_of_all_latents(tmp_path: Path) -> None:
    everything = 3 * images(list(range(11))).double()
    statistics = statistics_of(encoded(list(range(11))), tmp_path)
    torch.testing.assert_close(
        statistics.mean.flatten().double(), everything.mean((0, 2, 3)), rtol=1e-6, atol=0
    )
    deviation = everything.transpose(0, 1).flatten(1).std(1)
    torch.testing.assert_close(statistics.std.flatten().double(), deviation, rtol=1e-5, atol=0)


class Velocity(nn.Module):
    """Half of its input, times a weight."""

    num_classes = 2
    latent = SimpleNamespace(channels=3, side=4)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return self.weight * x


def test_the_loss_of_images_is_that_of_their_latents() -> None:
    tokenizer: Any = Scaling()
    encode = latent_encoder(tokenizer, LatentsSettings(), CPU)
    model: Any = Velocity()
    batch, labels = images([1, 2, 3]), torch.tensor([1, 0, 1])
    of_images = FlowObjective(model, FlowSettings(), encode)
    of_latents = FlowObjective(model, FlowSettings())
    one, two = (
        objective((given, labels), torch.Generator().manual_seed(5))
        for objective, given in ((of_images, batch), (of_latents, 3 * batch))
    )
    assert torch.equal(one["loss"], two["loss"])
    one["loss"].backward()
    assert tokenizer.weight.grad is None
    assert set(of_images.state_dict()) == {"model.weight"}, "the tokenizer is not trained"


def test_latents_in_float32_are_outside_of_the_training_in_bf16() -> None:
    class Matrix(Scaling):
        def encode(self, images: Tensor) -> Any:
            return SimpleNamespace(latents=images @ torch.eye(4))

    tokenizer: Any = Matrix()
    half, whole = (
        latent_encoder(tokenizer, LatentsSettings(precision=precision), CPU)
        for precision in ("bf16", "float32")
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert half(images([0])).dtype == torch.bfloat16
        assert whole(images([0])).dtype == torch.float32


def test_the_generator_reads_what_it_encodes_with(tiny_recipe: Path) -> None:
    def generator(*overrides: str) -> tuple[tuple[str, ...], set[str], bool]:
        recipe = load_recipe(tiny_recipe, ("evaluate.interpolation=null", *overrides)).recipe
        row = STAGES["generator"]
        reads = row.needs(("data", "train"), recipe)
        return row.inputs(recipe), set(row.hashed_values(recipe)), reads

    inputs, hashed, _ = generator()
    assert inputs == ("latents",)
    assert not {"stored", "train_images"} & hashed
    inputs, hashed, reads = generator("latents.stored=false")
    assert inputs == ("encoder", "tokenizer", "latents")
    assert {"stored", "train_images", "flip"} <= hashed
    assert reads


def test_nothing_is_encoded_for_a_loaded_generator(tiny_recipe: Path) -> None:
    overrides = ("latents={stored: false, statistics: s.pt}", "generator.weights=w.safetensors")
    recipe = load_recipe(tiny_recipe, ("sample=null", "evaluate=null", *overrides)).recipe
    assert STAGES["generator"].inputs(recipe) == ("latents",)
    assert not recipe.latents.encoded
