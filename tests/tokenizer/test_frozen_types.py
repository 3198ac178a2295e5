"""A frozen tokenizer's weights are cast once for encoding in bf16; latents keep their bits."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from tokenizer_fakes import FakeEncoder, FakeEncoderConfig
from torch import Tensor

from benchmarks.operations import Kernels
from pae_framework.contracts import Features
from pae_framework.testing.modules import as_if_trained
from pae_framework.tokenizer.frozen_types import cast_for_encoding
from pae_framework.tokenizer.model import ComposedTokenizer


class WithFloat32Part(FakeEncoder):
    """A plugin's encoder whose last layer computes in float32, also under autocast."""

    def forward(self, pixels: Tensor) -> Features:
        patches = self.embed(pixels).flatten(2).transpose(1, 2)
        with torch.autocast("cpu", enabled=False):
            tokens = self.mix(patches.float())
        return Features(tokens, tokens.mean(dim=1))


def frozen(tokenizer: ComposedTokenizer) -> ComposedTokenizer:
    trained = as_if_trained(tokenizer).requires_grad_(False).eval()
    return cast(ComposedTokenizer, trained)


def latents(tokenizer: ComposedTokenizer, images: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return tokenizer.encode(images).latents


@pytest.fixture(params=["dam", "finetune", "none"])
def modulator(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"use": "dam", "depth": 2} if request.param == "dam" else {"use": request.param}


@pytest.mark.parametrize("use", ["sphere", "gaussian", "identity"])
def test_latents_keep_their_bits_without_casts(
    build: Callable[..., ComposedTokenizer], images: Tensor, modulator: dict[str, object], use: str
) -> None:
    channels = {} if use == "identity" else {"channels": 6}
    plain = frozen(build(modulator=modulator, bottleneck={"use": use, **channels}))
    expected = latents(plain, images)
    cast_for_encoding(plain, plain.encoder.image_size)
    weights = [*plain.parameters(), *plain.encoder.parameters()]
    with Kernels(weight for weight in weights if weight.ndim > 1) as kernels:
        assert torch.equal(latents(plain, images), expected)
    assert kernels.counts["casts of weights"] == 0
    assert {w.dtype for w in plain.decoder.parameters()} == {torch.float32}  # encoding has no use


def test_a_float32_part_of_an_encoder_stays(
    build: Callable[..., ComposedTokenizer], images: Tensor
) -> None:
    plain = build()
    plain.hold_frozen("encoder", WithFloat32Part(FakeEncoderConfig(), 16))
    plain = frozen(plain)
    changed = deepcopy(plain)
    cast_for_encoding(changed, changed.encoder.image_size)
    assert torch.equal(latents(changed, images), latents(plain, images))
    encoder: Any = changed.encoder
    assert encoder.mix.weight.dtype == torch.float32
    assert encoder.embed.weight.dtype == torch.bfloat16
