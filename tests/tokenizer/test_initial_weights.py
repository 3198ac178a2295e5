"""Weights that the training of a tokenizer starts from, with a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from tokenizer_fakes import FakeEncoder, FakeEncoderConfig
from torch import Tensor

from pae_bottlenecks.config import SphereConfig
from pae_framework.build import build_tokenizer
from pae_framework.errors import CheckpointError, DataError
from pae_framework.execution.context import StageContext
from pae_framework.interop.tokenizer_weights import load_initial_weights
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tensor_files import save_tensors
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.world import ONE_PROCESS


class Named(FakeEncoder):
    """In files it has its own names."""

    def from_released(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors)


@pytest.fixture
def tokenizer(section: Callable[..., TokenizerSection], registry: Registry) -> ComposedTokenizer:
    return build_tokenizer(section(), 16, registry, Named(FakeEncoderConfig(), 16))


def load(tokenizer: ComposedTokenizer, file: Path, folder: Path) -> None:
    bottleneck = SimpleNamespace(config=SphereConfig())
    section = SimpleNamespace(initial_weights=str(file), bottleneck=bottleneck)
    recipe = SimpleNamespace(tokenizer_section=section)
    context = SimpleNamespace(recipe=recipe, directory=folder, world=ONE_PROCESS)
    load_initial_weights(cast(StageContext, context), tokenizer)


def with_encoder(tokenizer: ComposedTokenizer) -> dict[str, Tensor]:
    encoder = {f"encoder.{name}": x for name, x in tokenizer.encoder.state_dict().items()}
    return {**tokenizer.state_dict(), **encoder}


@pytest.mark.parametrize("encoder_too", [True, False])
def test_they_replace_the_random_ones(
    tokenizer: ComposedTokenizer, tmp_path: Path, encoder_too: bool
) -> None:
    wanted = {name: x + 1 for name, x in tokenizer.state_dict().items()}
    encoder = {n: x for n, x in with_encoder(tokenizer).items() if n.startswith("encoder.")}
    save_tensors(wanted | (encoder if encoder_too else {}), tmp_path / "t.safetensors")
    load(tokenizer, tmp_path / "t.safetensors", tmp_path)
    assert all(torch.equal(x, wanted[name]) for name, x in tokenizer.state_dict().items())


@pytest.mark.parametrize("name", ["encoder.mix.weight", "encoder.embed.bias"])
def test_other_weights_of_a_frozen_encoder_are_refused(
    tokenizer: ComposedTokenizer, tmp_path: Path, name: str
) -> None:
    tensors = with_encoder(tokenizer)
    tensors[name] = tensors[name] + 1
    save_tensors(tensors, tmp_path / "t.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(tokenizer, tmp_path / "t.safetensors", tmp_path)
    assert name.removeprefix("encoder.") in str(caught.value)


def test_a_file_that_is_missing_or_does_not_fit_is_refused(
    tokenizer: ComposedTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.initial_weights"):
        load(tokenizer, tmp_path / "nothing.pt", tmp_path)
    tensors = dict(tokenizer.state_dict())
    del tensors["decoder.decoder_norm.bias"]
    save_tensors(tensors, tmp_path / "t.safetensors")
    with pytest.raises(CheckpointError, match=r"decoder\.decoder_norm\.bias"):
        load(tokenizer, tmp_path / "t.safetensors", tmp_path)
