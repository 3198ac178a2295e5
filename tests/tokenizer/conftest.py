from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tokenizer_fakes import FakeEncoder, fake_encoder, registry_with_fakes, tokenizer_section

from pae_framework.build import build_tokenizer
from pae_framework.plugins import Registry
from pae_framework.recipe.models import TokenizerSection
from pae_framework.tokenizer.model import Tokenizer


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
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
def build(registry: Registry, encoder: FakeEncoder) -> Callable[..., Tokenizer]:
    def build(**changes: Any) -> Tokenizer:
        return build_tokenizer(tokenizer_section(registry, **changes), 16, registry, encoder)

    return build


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
