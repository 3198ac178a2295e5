"""A small random encoder and the fixtures for tests of tokenizers and modulators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pae_framework.build import build_tokenizer
from pae_framework.config import EncoderConfig
from pae_framework.contracts import Encoder, Features
from pae_framework.layers import map_to_tokens
from pae_framework.plugins import load_registry
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import ComponentSpec, Plugin, Registry
from pae_framework.tokenizer.model import ComposedTokenizer


class FakeEncoderConfig(EncoderConfig):
    width: int = 32
    heads: int = 4
    patch: int = 4

    def token_grid(self, image_size: int) -> int:
        return image_size // self.patch

    def token_width(self) -> int:
        return self.width


class FakeEncoder(Encoder):
    """Patches through one fixed random layer, with dropout: in train mode it would be random."""

    mean = (0.5, 0.4, 0.3)
    std = (0.5, 0.25, 0.2)

    def __init__(self, config: FakeEncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.grid = config.token_grid(image_size)
        self.width, self.heads, self.patch = config.width, config.heads, config.patch
        self.embed = nn.Conv2d(3, config.width, config.patch, config.patch)
        self.mix = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.calls = 0
        self.map_calls = 0

    def forward(self, pixels: Tensor) -> Features:
        self.calls += 1
        tokens = self.norm(self.dropout(self.mix(map_to_tokens(self.embed(pixels)))))
        return Features(tokens, tokens.mean(dim=1))

    def feature_maps(self, pixels: Tensor) -> list[Tensor]:
        self.map_calls += 1
        first = map_to_tokens(self.embed(pixels))
        return [first, self.mix(first).tanh()]


def fake_encoder(image_size: int = 16, **parameters: Any) -> FakeEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return FakeEncoder(FakeEncoderConfig(**parameters), image_size)


def registry_with_fakes() -> Registry:
    registry = load_registry()
    registry.add(
        ComponentSpec(
            "encoder",
            "fake",
            "tokenizer_fakes:FakeEncoder",
            "tokenizer_fakes:FakeEncoderConfig",
            "a fake",
            Plugin("fakes", "tokenizer_fakes", "tests", "0"),
        )
    )
    return registry


def tokenizer_section(registry: Registry, **changes: Any) -> TokenizerSection:
    """The smallest whole tokenizer section: 16 px, 4 x 4 tokens of width 32, 6 latent channels."""
    values: dict[str, Any] = {
        "encoder": "fake",
        "modulator": {"use": "dam", "depth": 2},
        "bottleneck": {"use": "sphere", "channels": 6},
        "decoder": {"use": "vit", "width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch": 4},
        "train": {"steps": 1},
    }
    return TokenizerSection.model_validate(values | changes, context={"registry": registry})


# --- fixtures -------------------------------------------------------------------------------------


@pytest.fixture
def reproducible() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def registry() -> Registry:
    return registry_with_fakes()


@pytest.fixture
def encoder() -> FakeEncoder:
    return fake_encoder()


@pytest.fixture
def section(registry: Registry) -> Callable[..., TokenizerSection]:
    return lambda **changes: tokenizer_section(registry, **changes)


@pytest.fixture
def build(registry: Registry, encoder: FakeEncoder) -> Callable[..., ComposedTokenizer]:
    def build(**changes: Any) -> ComposedTokenizer:
        return build_tokenizer(tokenizer_section(registry, **changes), 16, registry, encoder)

    return build


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
