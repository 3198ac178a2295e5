"""The network that guides: another run's, over the same latents, or a clear refusal."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.data.latent_dataset import shard_name, write_shard
from pae_framework.data.statistics import LatentStatistics, compute_statistics
from pae_framework.errors import CheckpointError, UsageError
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.plugins import load_registry
from pae_framework.runs.results import StageResults
from pae_framework.sampling.sampler import load_weak_generator, weak_generator_of
from pae_framework.tensor_files import save_tensors

LATENT = LatentShape(4, 3)
CLASSES = 5


class Small(Generator):
    def __init__(self, config, latent, num_classes):
        super().__init__(config, latent, num_classes)
        self.table = nn.Embedding(num_classes + 1, latent.channels)

    def forward(self, x, t, y):
        return x + self.table(y)[:, :, None, None]


def write_latents(folder, latent=LATENT, offset=0.0, seed=0):
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    z = offset + torch.randn(400, latent.channels, latent.side, latent.side, generator=random)
    write_shard(folder / shard_name(0, 0), z, z, torch.zeros(400, dtype=torch.int64))
    compute_statistics(folder).save(folder)
    return folder


def recipe_for(latent):
    """The parts of a recipe that say which latents its tokenizer makes."""
    tokenizer = SimpleNamespace(latent_shape=lambda image_size: latent)
    return {"tokenizer": tokenizer, "data": SimpleNamespace(image_size=8)}


class OtherRun:
    """A finished run of which only the latents and the generator are there."""

    def __init__(self, path, classes=CLASSES, **latents):
        write_latents(path / "latents", **latents)
        self.model = Small(GeneratorConfig(), latents.get("latent", LATENT), classes)
        save_tensors(self.model.state_dict(), path / "generator" / "weights.safetensors")
        component = SimpleNamespace(kind="generator", use="small", config=GeneratorConfig())
        recipe = recipe_for(latents.get("latent", LATENT))
        self.loaded = SimpleNamespace(recipe=SimpleNamespace(generator=component, **recipe))
        self.directory = SimpleNamespace(
            path=path, results=lambda name: StageResults(path / name, None, "run it again")
        )

    def finished(self, stage):
        return stage


@pytest.fixture
def weak(tmp_path):
    """Load the second network of a run whose own latents are standard normal."""
    ours = write_latents(tmp_path / "ours", seed=1)

    def load(other):
        spec = SimpleNamespace(component_class=lambda: Small)
        context = SimpleNamespace(
            registry=SimpleNamespace(find=lambda kind, name: spec),
            file=lambda stage, name: ours / name,
            device=torch.device("cpu"),
        )
        return weak_generator_of(other, context, LATENT, CLASSES)

    return load


def test_it_has_the_other_runs_weights_and_is_frozen(weak, tmp_path):
    other = OtherRun(tmp_path / "other", seed=2)
    found = weak(other)
    assert torch.equal(found.table.weight, other.model.table.weight)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_latents_of_another_shape_are_refused(weak, tmp_path):
    other = OtherRun(tmp_path / "other", latent=LatentShape(8, 3))
    with pytest.raises(UsageError) as refused:
        weak(other)
    for fact in ("autoguidance", "8 x 3 x 3", "4 x 3 x 3"):
        assert fact in str(refused.value)


def test_latents_of_the_same_shape_from_another_tokenizer_are_refused(weak, tmp_path):
    with pytest.raises(UsageError) as refused:
        weak(OtherRun(tmp_path / "other", offset=0.5))
    for fact in ("autoguidance", str(tmp_path / "other"), "means", "`latents`"):
        assert fact in str(refused.value)


@pytest.mark.parametrize(("theirs", "refused"), [("4af1", False), ("9b07", True)])
def test_latents_that_are_not_normalized_must_be_of_the_same_tokenizer(
    weak, tmp_path, theirs, refused
):
    other = OtherRun(tmp_path / "other")
    for folder, tokenizer in (("ours", "4af1"), ("other/latents", theirs)):
        LatentStatistics.none(LATENT.channels).save(tmp_path / folder, tokenizer)
    with pytest.raises(UsageError, match="tokenizer") if refused else nullcontext():
        weak(other)


def test_another_number_of_classes_is_refused(weak, tmp_path):
    with pytest.raises(CheckpointError) as refused:
        weak(OtherRun(tmp_path / "other", classes=7))
    for fact in ("table.weight", "8x4", "6x4"):
        assert fact in str(refused.value)


@pytest.mark.parametrize("sample", [None, SampleSettings(guidance=Guidance(scale=2))])
def test_without_autoguidance_there_is_no_second_network(sample):
    context = SimpleNamespace(recipe=SimpleNamespace(sample=sample))
    assert load_weak_generator(context, LATENT, CLASSES) is None


def test_a_directory_without_a_run_is_refused(tmp_path):
    guidance = Guidance(scale=2, autoguidance=str(tmp_path))
    recipe = SimpleNamespace(sample=SampleSettings(guidance=guidance))
    context = SimpleNamespace(recipe=recipe, registry=load_registry())
    with pytest.raises(UsageError) as refused:
        load_weak_generator(context, LATENT, CLASSES)
    assert str(tmp_path) in str(refused.value)
    assert "no run" in str(refused.value)


# --- a file of weights --------------------------------------------------------------------------


@pytest.fixture
def guide(tmp_path):
    """Load the network of a recipe's ``guide`` with the weights in ``stage2_model.pt``."""
    file = tmp_path / "stage2_model.pt"

    def load(content, described=True):
        torch.save(content, file)
        guidance = Guidance(scale=1.42, autoguidance=str(file))
        component = SimpleNamespace(kind="generator", use="small", config=GeneratorConfig())
        sample = SampleSettings(guidance=guidance)
        data = SimpleNamespace(train=SimpleNamespace(config=SimpleNamespace(class_count=lambda: 5)))
        spec = SimpleNamespace(component_class=lambda: Small)
        context = SimpleNamespace(
            recipe=SimpleNamespace(
                sample=sample, guide=component if described else None, data=data
            ),
            registry=SimpleNamespace(find=lambda kind, name: spec),
            device=torch.device("cpu"),
        )
        return load_weak_generator(context, LATENT, CLASSES)

    return load


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"ema": x}, lambda x: {"model": x}])
def test_a_file_guides_with_the_network_of_the_recipe(guide, wrap):
    state = Small(GeneratorConfig(), LATENT, CLASSES).state_dict()
    found = guide(wrap(state))
    assert torch.equal(found.table.weight, state["table.weight"])
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_the_average_in_a_file_guides(guide):
    trained, average = (Small(GeneratorConfig(), LATENT, CLASSES).state_dict() for _ in range(2))
    found = guide({"model": trained, "ema": average})
    assert torch.equal(found.table.weight, average["table.weight"])


def test_a_file_without_a_described_network_is_refused(guide, tmp_path):
    with pytest.raises(UsageError) as refused:
        guide({"table.weight": torch.zeros(6, 4)}, described=False)
    assert str(tmp_path / "stage2_model.pt") in str(refused.value)
    assert "guide=" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ({"table.weight": torch.zeros(8, 4)}, ["table.weight", "8x4", "6x4"]),
        ({"other.weight": torch.zeros(6, 4)}, ["other.weight", "table.weight"]),
        ({"table.weight": torch.full((6, 4), torch.nan)}, ["table.weight"]),
    ],
    ids=["classes", "names", "not finite"],
)
def test_weights_of_another_network_are_refused(guide, content, facts):
    with pytest.raises(CheckpointError) as refused:
        guide(content)
    for fact in ("stage2_model.pt", *facts):
        assert fact in str(refused.value)
