"""Stage ``tokenizer``: training of regularizers with parameters and of a discriminator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pae_framework.build import build_encoder
from pae_framework.config import DataSourceConfig, DiscriminatorConfig, RegularizerConfig
from pae_framework.contracts import DataSource, Discriminator, LabeledImage, Regularizer
from pae_framework.errors import CheckpointError, PluginError, UsageError
from pae_framework.execution.context import initial_weights
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry
from pae_framework.stages.tokenizer import run
from pae_framework.system.console import PlainConsole
from pae_framework.tensor_files import save_tensors
from pae_framework.training.progress import ProgressLine
from pae_framework.training.task import TrainContext
from pae_framework.training.train_settings import TrainSettings
from pae_framework.world import ONE_PROCESS

CHANGES = [
    "data.image_size=16",
    "tokenizer.encoder.width=16",
    "tokenizer.encoder.depth=2",
    "tokenizer.bottleneck.channels=4",
    "tokenizer.decoder.width=16",
    "tokenizer.decoder.depth=1",
    "tokenizer.refinement=null",
    "tokenizer.regularizers={learned: {}}",
    "tokenizer.train={steps: 1, batch_size: 4, lr: 0.5}",
    "tokenizer.train.ema=null",
]
NAME = "regularizers.learned.head.weight"


class LearnedConfig(RegularizerConfig):
    pass


class Learned(Regularizer):
    """The mean square of a trained linear map of the latents' channels."""

    def __init__(self, config: LearnedConfig):
        super().__init__(config)
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, inputs):
        return self.head(inputs.posterior.latents.movedim(1, -1)).square().mean()


class Unbuildable(Discriminator):
    def __init__(self, config: DiscriminatorConfig, image_size: int):
        raise RuntimeError("built")

    def forward(self, images):
        raise NotImplementedError


class UnbuildableConfig(DiscriminatorConfig):
    pass


class Noise(DataSource):
    class_names = ("a", "b")  # type: ignore[assignment]

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> LabeledImage:
        random = torch.Generator().manual_seed(index)
        size = (3, self.image_size, self.image_size)
        image = torch.randint(256, size, generator=random, dtype=torch.uint8)
        return LabeledImage(image, index % 2)


@pytest.fixture
def registry() -> Registry:
    registry = load_registry()
    plugin = Plugin("here", "test_stage_tokenizer", "tests", "0")
    for kind, name in (("regularizer", "Learned"), ("discriminator", "Unbuildable")):
        classes = (f"test_stage_tokenizer:{name}", f"test_stage_tokenizer:{name}Config")
        registry.add(ComponentSpec(kind, name.lower(), *classes, "a test component", plugin))
    return registry


def print_length(train: TrainSettings, images: int) -> int:
    print(f"{images} images")
    return train.total_steps(images)


def trained(
    directory: Path, registry: Registry, encoder: Path, *changes: str
) -> dict[str, torch.Tensor]:
    """Run the stage; returns the state dict of the objective."""
    recipe = load_recipe("quickstart", [*CHANGES, *changes], registry).recipe
    progress = lambda total, done: ProgressLine("t", total, done, PlainConsole(quiet=True))  # noqa: E731
    context = SimpleNamespace(
        recipe=recipe,
        registry=registry,
        device=torch.device("cpu"),
        directory=directory,
        world=ONE_PROCESS,
        train_source=Noise(DataSourceConfig(), 16),
        seed=lambda train: 7,
        print_length=print_length,
        recorded=lambda key: {},
        update_record=lambda **values: None,
        reads=lambda stage: stage == "encoder",
        file=lambda stage, name: encoder / name,
        train_context=lambda train, images: TrainContext(
            directory, torch.device("cpu"), "tokenizer", 7, progress
        ),
    )
    if not encoder.exists():
        fresh = build_encoder(recipe.tokenizer.encoder, 16, registry)
        save_tensors(fresh.state_dict(), encoder / "encoder.safetensors")
    run(context)  # type: ignore[arg-type]
    return load_file(directory / "weights.safetensors")


def test_a_regularizers_parameters_are_seeded_trained_and_checkpointed(tmp_path, registry):
    encoder = tmp_path / "encoder"
    one = trained(tmp_path / "one", registry, encoder)
    torch.rand(5)  # earlier random numbers have no effect
    two = trained(tmp_path / "two", registry, encoder)

    assert all(torch.equal(one[name], two[name]) for name in one)
    with initial_weights(7, "regularizers"):
        initial = Learned(LearnedConfig()).head.weight
    assert (one[NAME] - initial).abs().min() > 0.01  # AdamW's first step is about lr everywhere
    saved = load_file(tmp_path / "one" / "checkpoints" / "step-00000001" / "model.safetensors")
    assert torch.equal(saved[NAME], one[NAME])
    kept = load_file(tmp_path / "one" / "tokenizer.safetensors")
    assert not any("learned" in name or "regularizers" in name for name in kept)


IDENTITY = (
    "tokenizer.regularizers={}",
    "tokenizer.bottleneck=null",
    "tokenizer.bottleneck={use: identity, statistics_images: 8}",
    "tokenizer.modulator=null",
    "tokenizer.modulator=none",
)


def test_statistics_of_initial_weights_are_kept(tmp_path, registry):
    """They are not measured again, and a file of others is refused."""
    encoder, start, stat = tmp_path / "encoder", tmp_path / "start.safetensors", tmp_path / "s.pt"
    trained(tmp_path / "one", registry, encoder, *IDENTITY)
    tensors = load_file(tmp_path / "one" / "tokenizer.safetensors")
    assert tensors["bottleneck.mean"].any()  # measured
    tensors["bottleneck.mean"] = tensors["bottleneck.mean"] + 3
    save_tensors(tensors, start)
    statistics = {key: tensors[f"bottleneck.{key}"] for key in ("mean", "var")}
    again = [*IDENTITY, f"tokenizer.initial_weights={start}"]
    stated = [*again, f"tokenizer.bottleneck.statistics={stat}"]

    torch.save(statistics, stat)
    for name, changes in (("two", again), ("three", stated)):
        trained(tmp_path / name, registry, encoder, *changes)
        kept = load_file(tmp_path / name / "tokenizer.safetensors")
        assert all(torch.equal(kept[f"bottleneck.{key}"], x) for key, x in statistics.items())

    torch.save({"mean": None, "var": statistics["var"]}, stat)
    with pytest.raises(CheckpointError) as refused:
        trained(tmp_path / "four", registry, encoder, *stated)
    for fact in (str(start), str(stat), "bottleneck.mean", "tokenizer.bottleneck.statistics=null"):
        assert fact in str(refused.value)


ADVERSARIAL = (
    "tokenizer.regularizers={}",
    "data.train={use: shapes, count: 8}",
    "tokenizer.train={steps: 6, batch_size: 4, log_every: 1, checkpoint_every: 3}",
    "tokenizer.adversarial={discriminator: {use: patchgan, layers: 1, width: 4}, "
    # two steps of four are an epoch of the eight images
    "update_from: {epochs: 1}, start: {epochs: 2}, warmup: {steps: 1}}",
)


def test_a_discriminator_is_trained_by_its_schedule(tmp_path, registry):
    """Trained from step 2 on. The term is active from step 5 on: at its start, 4, it is 0."""
    here = tmp_path / "one"
    trained(here, registry, tmp_path / "encoder", *ADVERSARIAL)

    lines = [json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    learns = [("discriminator" in line, "logits_fake" in line) for line in lines]
    assert learns == [(False, False)] * 2 + [(True, True)] * 4
    assert ["adversarial" in line for line in lines] == [False] * 5 + [True]
    assert lines[-1]["adversarial_weight"] > 0

    kept = load_file(here / "tokenizer.safetensors")
    assert not any("main" in name or "discriminator" in name for name in kept)
    saved = list((here / "checkpoints" / "step-00000006").glob("*opponent*"))
    assert saved, "the discriminator is part of the checkpoint"


def test_an_interrupted_training_resumes_with_its_discriminator(tmp_path, registry):
    whole = trained(tmp_path / "whole", registry, tmp_path / "encoder", *ADVERSARIAL)
    trained(tmp_path / "cut", registry, tmp_path / "encoder", *ADVERSARIAL)
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    again = trained(tmp_path / "cut", registry, tmp_path / "encoder", *ADVERSARIAL)
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_the_length_is_printed_before_the_discriminator_is_built(tmp_path, registry, capsys):
    section = "tokenizer.adversarial={discriminator: {use: unbuildable}}"
    with pytest.raises(PluginError, match="built"):
        trained(tmp_path / "one", registry, tmp_path / "encoder", section)
    assert "8 images" in capsys.readouterr().out


def test_with_weight_0_the_discriminator_is_not_built(tmp_path, registry):
    section = "tokenizer.adversarial={discriminator: {use: unbuildable}}"
    off = (section, "tokenizer.adversarial.weight=0")
    trained(tmp_path / "one", registry, tmp_path / "encoder", *off)
    with pytest.raises(PluginError):
        trained(tmp_path / "two", registry, tmp_path / "encoder", section)


def test_a_large_term_that_starts_late_is_not_a_divergence(tmp_path, registry):
    """Its first value is many times the loss before."""
    changes = (
        "tokenizer.regularizers={}",
        "tokenizer.train={steps: 26, batch_size: 4, log_every: 1, checkpoint_every: 30, jump: 3}",
        "tokenizer.adversarial={discriminator: {use: patchgan, layers: 1, width: 4}, "
        "adaptive: false, weight: 1000, start: {steps: 24}, optimizer: {lr: 0.01}}",
    )
    trained(tmp_path / "one", registry, tmp_path / "encoder", *changes)
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[24] > 3 * max(losses[:24])


def test_adaptive_terms_at_frozen_layers_are_rejected_before_training(tmp_path, registry):
    changes = (*ADVERSARIAL, "tokenizer.train.lr_factors={decoder: 0}")
    with pytest.raises(UsageError, match=r"'adversarial' .*decoder's last layer.*lr_factors"):
        trained(tmp_path / "one", registry, tmp_path / "encoder", *changes)
    assert not (tmp_path / "one" / "metrics.jsonl").exists()


def test_in_bf16_frozen_weights_are_cast_and_results_keep_their_bits(
    tmp_path, registry, monkeypatch
):
    networks = "pae_framework.stages.tokenizer.cast_frozen_networks"
    calls: list[object] = []
    found = {}
    for precision in ("float32", "bf16"):
        changes = (*ADVERSARIAL, f"tokenizer.train.precision={precision}")
        for cast in (True, False):
            with monkeypatch.context() as patch:
                if not cast:
                    patch.setattr(networks, lambda *given: calls.append(given))
                folder = tmp_path / f"{precision}{cast}"
                found[cast] = trained(folder, registry, tmp_path / "encoder", *changes)
        assert all(torch.equal(found[True][name], value) for name, value in found[False].items())
    assert len(calls) == 1  # in bf16 only
