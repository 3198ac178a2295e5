"""Frozen weights are cast once, to what autocast would cast them to; results keep their bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.frozen import UsesFrozen
from pae_framework.plugins import load_registry
from pae_framework.training.frozen_casts import cast_frozen


class Everything(nn.Module):
    """Weights used in all the ways there are."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.convolution = nn.Conv1d(1, 1, 3, padding=1)
        self.function = nn.Parameter(torch.rand(4, 4))
        self.norm = nn.LayerNorm(4)
        self.position = nn.Parameter(torch.rand(4))
        self.both = nn.Parameter(torch.rand(4, 4))
        self.exact = nn.Linear(4, 4)
        self.listed = nn.ParameterList([torch.rand(2), torch.rand(2)])
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.linear(x) + self.position)
        x = self.convolution(x[:, None])[:, 0]
        x = F.linear(x, self.function, torch.cat(list(self.listed)))
        x = F.linear(x, self.both) * self.both[0]
        with torch.autocast("cpu", enabled=False):
            return self.exact(x.float())


@pytest.fixture
def network() -> Everything:
    torch.manual_seed(0)
    return Everything().eval().requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 4, generator=torch.Generator().manual_seed(1))


def cast_weights(network: nn.Module) -> set[str]:
    return {name for name, w in network.named_parameters() if w.dtype == torch.bfloat16}


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def test_what_autocast_only_ever_casts(network: Everything, x: Tensor) -> None:
    cast_frozen(network, lambda: [network(x)])
    layers = {f"{name}.{part}" for name in ("linear", "convolution") for part in ("weight", "bias")}
    assert cast_weights(network) == {*layers, "function"}


def test_results_under_autocast_keep_their_bits(network: Everything, x: Tensor) -> None:
    with autocast():
        expected = network(x)
    cast_frozen(network, lambda: [network(x)])
    with autocast():
        assert torch.equal(network(x), expected)


def test_trained_weights_stay(network: Everything, x: Tensor) -> None:
    network.linear.weight.requires_grad_(True)
    cast_frozen(network, lambda: [network(x)])
    assert "linear.weight" not in cast_weights(network)
    assert "linear.bias" in cast_weights(network)


def test_of_a_network_without_frozen_weights_nothing_is_run() -> None:
    cast_frozen(nn.Linear(2, 2), lambda: pytest.fail("was run"))


def test_a_frozen_network_beside_the_module_tree(network: Everything, x: Tensor) -> None:
    class Uses(UsesFrozen):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 1)
            self.hold_frozen("trunk", network)

    uses = Uses()
    cast_frozen(uses, lambda: [uses.head(network(x))])
    assert "linear.weight" in cast_weights(network)
    assert cast_weights(uses) == set()


def test_it_draws_no_random_numbers_of_others(x: Tensor) -> None:
    network = nn.Linear(4, 4).requires_grad_(False)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    cast_frozen(network, lambda: [network(x + torch.rand(4))])
    assert torch.equal(torch.rand(2), expected)


class Follows(nn.Module):
    """Computes in the type of a weight, with and without another one."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        x = torch.exp(x.to(self.first.weight.dtype))
        if not self.fails:
            return self.first(x)
        if self.fails == "of its own" and self.second.weight.dtype != torch.float32:
            raise ValueError("query and key should have the same dtype")
        with torch.autocast("cpu", enabled=False):
            x = self.second(x)
        return self.first(x)


@pytest.mark.parametrize("fails", ["", "of torch", "of its own"])
def test_nothing_is_cast_if_the_results_would_change(fails: str, x: Tensor) -> None:
    torch.manual_seed(0)
    network = Follows(fails).requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cast_frozen(network, lambda: [network(x)])
    assert cast_weights(network) == set()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_weight_with_two_names(x: Tensor) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    cast_frozen(network.requires_grad_(False), lambda: [network(x)])
    assert network[1].weight is network[0].weight
    assert network[0].weight.dtype == torch.bfloat16


SIZE = {"width": 32, "depth": 2, "heads": 2}
ENCODERS: dict[str, dict[str, Any]] = {
    "tiny_vit": {"patch": 4, "width": 16, "depth": 2, "heads": 2},
    "small_cnn": {"width": 8},
    **{use: {"weights": "none", "size": SIZE} for use in ("dinov2", "dinov3", "mae", "siglip2")},
}


def component(kind: str, use: str, image_size: int, **parameters: Any) -> nn.Module:
    torch.manual_seed(0)
    spec = load_registry().find(kind, use)
    return spec.component_class()(spec.config_class()(**parameters), image_size).eval()


@pytest.mark.parametrize("use", ENCODERS)
def test_of_every_encoder(use: str) -> None:
    """Tokens and feature maps keep their bits; matrices and kernels are cast, norms are not."""
    encoder: Any = component("encoder", use, 32, **ENCODERS[use]).requires_grad_(False)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def outputs() -> list[Tensor]:
        pixels = encoder.normalize(images)
        return [encoder(pixels).tokens, *encoder.feature_maps(pixels)]

    assert_same_bits(encoder, outputs)
    cast = cast_weights(encoder)
    matrices = {name for name, w in encoder.named_parameters() if w.ndim in (2, 4)}
    assert cast >= {name for name in matrices if "attn_pool" not in name}
    assert not [name for name in cast if "norm" in name]


def test_of_dinos_discriminator() -> None:
    """Its heads are trained."""
    size = {"resolution": 16, "width": 32, "depth": 2, "heads": 2, "layers": [0, 1]}
    discriminator = component("discriminator", "dino", 16, weights="none", **size)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert_same_bits(discriminator, lambda: [discriminator(images)])
    assert cast_weights(discriminator) == set()
    assert "blocks.0.attn.qkv.weight" in cast_weights(discriminator.frozen)  # type: ignore[arg-type]


def assert_same_bits(network: nn.Module, outputs: Callable[[], list[Tensor]]) -> None:
    with torch.no_grad(), autocast():
        expected = outputs()
    cast_frozen(network, outputs)
    with torch.no_grad(), autocast():
        assert all(map(torch.equal, outputs(), expected))
