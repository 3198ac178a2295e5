"""Networks that sample: cast once for bf16, compiled for one batch size."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from benchmarks.operations import Kernels
from pae_framework.config import GeneratorConfig, LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.sampling import sample_latents
from pae_framework.plugins import load_registry
from pae_framework.sampling import sampler
from pae_framework.sampling.sampler import Sampler, cast_for_sampling, describe
from pae_framework.tensor_files import save_tensors
from pae_framework.testing.modules import as_if_trained

LATENT = LatentShape(4, 4)
SIZES: dict[str, dict[str, Any]] = {
    "lightningdit": {"depth": 2, "width": 48, "heads": 2, "patch": 1, "qk_norm": True},
    "dit_dh": {
        **{"depth": 2, "width": 48, "heads": 2, "patch": 1},
        **{"head_depth": 1, "head_width": 64, "head_heads": 2},
    },
}


def network(name: str = "lightningdit") -> Any:
    spec = load_registry().find("generator", name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = spec.component_class()(spec.config_class()(**SIZES[name]), LATENT, 10)
    return as_if_trained(built).requires_grad_(False).eval()


def velocity(model: Any) -> torch.Tensor:
    x = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        return model(x, torch.tensor([0.1, 0.5, 0.9]), torch.tensor([1, 2, 10]))


@pytest.mark.parametrize("name", SIZES)
def test_layers_that_are_cast_once_give_the_same_bits_without_casts(name: str) -> None:
    plain, cast = network(name), network(name)
    cast_for_sampling(cast)
    counts = {}
    for model in (plain, cast):
        with Kernels(plain.parameters()) as kernels:
            velocity(model)
        counts[model] = kernels.counts["casts of weights"]
    assert counts[plain] > 0
    assert counts[cast] == 0
    assert torch.equal(velocity(cast), velocity(plain))
    assert cast.state_dict().keys() == plain.state_dict().keys()


class WithFloat32Part(Generator):
    """A plugin's generator whose head computes in float32, also under autocast."""

    def __init__(self) -> None:
        super().__init__(GeneratorConfig(), LATENT, 10)
        self.trunk = nn.Conv2d(4, 8, 1)
        self.labels = nn.Embedding(11, 8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens = self.trunk(x) + self.labels(y)[..., None, None] * t.view(-1, 1, 1, 1)
        with torch.autocast("cpu", enabled=False):
            return self.to_velocity(tokens.float())

    def to_velocity(self, tokens: Tensor) -> Tensor:
        return self.head(tokens)


class WithExplicitFloat(WithFloat32Part):
    """Its head is converted at every use."""

    def to_velocity(self, tokens: Tensor) -> Tensor:
        weight, bias = self.head.weight.float(), self.head.bias
        assert bias is not None
        return F.conv2d(tokens.double(), weight.double(), bias.double()).float()


class WithFloat32Module(WithFloat32Part):
    """Its head says itself that it wants float32."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Float32Conv(8, 4, 1)

    def to_velocity(self, tokens: Tensor) -> Tensor:
        assert self.head.weight.dtype == torch.float32
        return self.head(tokens)


class Float32Conv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class InTheTypeOfItsWeights(WithFloat32Part):
    """Its time would lose digits if the first of its weights became bf16."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        t = 1000 * t.to(next(self.parameters()).dtype)
        return self.head(self.trunk(x)) * torch.cos(t.float()).view(-1, 1, 1, 1)


PLUGINS = [WithFloat32Part, WithExplicitFloat, WithFloat32Module, InTheTypeOfItsWeights]


@pytest.mark.parametrize("kind", PLUGINS)
def test_parts_in_float32_sample_as_they_trained(kind: type[WithFloat32Part]) -> None:
    """Under autocast, which is how bf16 trains, the velocity is the same before and after."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = kind().requires_grad_(False).eval()
    cast = deepcopy(plain)
    cast_for_sampling(cast)
    assert torch.equal(velocity(cast), velocity(plain))
    assert cast.head.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", PLUGINS[:3])
def test_the_rest_of_such_a_generator_is_cast(kind: type[WithFloat32Part]) -> None:
    cast = kind().requires_grad_(False).eval()
    cast_for_sampling(cast)
    assert cast.trunk.weight.dtype == torch.bfloat16
    assert cast.labels.weight.dtype == torch.float32  # a table is looked up as it is


def sampler_of(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Sampler:
    """The sampler of a run whose generator is guided by another network."""
    context: Any = SimpleNamespace(
        recipe=SimpleNamespace(sample=SampleSettings(**settings)), machine={"tf32": False}
    )
    parts = {
        "trained_generator": lambda context: network(),
        "load_weak_generator": lambda *arguments: network(),
        "latent_shape": lambda recipe: LATENT,
        "trained_tokenizer": lambda context: None,
        "run_statistics": lambda context: None,
    }
    for name, made in parts.items():
        monkeypatch.setattr(sampler, name, made)
    return Sampler.of(context)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_both_networks_are_cast_to_the_precision(monkeypatch, precision, dtype) -> None:
    found = sampler_of(monkeypatch, precision=precision)
    for model in (found.model, found.weak):
        layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        assert {layer.weight.dtype for layer in layers} == {dtype}
        assert model.feat_rope.freqs_cos.dtype == torch.float32
        assert model.blocks[0].norm1.weight.dtype == torch.float32


def test_weights_that_are_loaded_later_are_cast_too(monkeypatch, tmp_path) -> None:
    other = network().requires_grad_(False)
    for weight in other.parameters():
        weight.mul_(2)
    path = tmp_path / "weights.safetensors"
    save_tensors(other.state_dict(), path)
    found = sampler_of(monkeypatch, precision="bf16")
    found.load(path)
    assert torch.equal(velocity(found.model), velocity(other))


@pytest.mark.parametrize("compiles", [False, True])
def test_blocks_of_both_networks_are_compiled_if_the_recipe_says_so(monkeypatch, compiles) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **how: asked.append(how))
    sampler_of(monkeypatch, compile=compiles)
    assert asked == [{"dynamic": False}] * (4 if compiles else 0)


def test_there_is_one_program_for_each_size_of_a_batch(monkeypatch) -> None:
    """Seven samples in batches of three: guided steps have six rows, others three."""
    counter, compiled = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **how: compiled(module, backend=counter, **how)
    )
    torch._dynamo.reset()
    settings = SampleSettings(
        **{"compile": True, "batch_size": 3, "steps": 4},
        guidance=Guidance(scale=2.0, interval=(0.4, 1.0)),
    )
    model = sampler_of(monkeypatch, compile=True).model
    labels = torch.arange(7)
    found = sample_latents(model, labels, labels, settings, 0, LATENT)
    torch._dynamo.reset()
    assert counter.frame_count == 2
    eager = settings.model_copy(update={"compile": False})
    torch.testing.assert_close(found, sample_latents(network(), labels, labels, eager, 0, LATENT))


def test_the_protocol_names_a_precision_other_than_float32() -> None:
    assert "precision" not in describe(SampleSettings())
    assert describe(SampleSettings(precision="bf16"))["precision"] == "bf16"
