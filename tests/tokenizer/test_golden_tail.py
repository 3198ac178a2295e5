"""Everything behind the frozen encoder, against PAE's own code on small random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pae_framework.layers import sincos_positions
from pae_framework.tokenizer.model import ComposedTokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "pae_tail_tiny.safetensors"
close = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN)


@pytest.fixture
def tokenizer(
    golden: dict[str, Tensor], build: Callable[..., ComposedTokenizer]
) -> ComposedTokenizer:
    tokenizer = build()
    state = {
        key.removeprefix("state."): value
        for key, value in golden.items()
        if key.startswith("state.")
    }
    tokenizer.load_state_dict(state, strict=True)
    return tokenizer.eval()


def test_fixed_positions_are_those_of_the_released_files(golden: dict[str, Tensor]) -> None:
    dam = sincos_positions(4, 32, torch.float32)
    decoder = sincos_positions(4, 24)
    torch.testing.assert_close(dam, golden["state.delta_encoder.pos_embed"], atol=1e-6, rtol=0)
    stored = golden["state.decoder.decoder_pos_embed"]
    torch.testing.assert_close(decoder, stored[:, 1:], atol=1e-6, rtol=0)
    assert not stored[:, 0].any()


@torch.no_grad()
def test_each_part_gives_the_reference_output(
    tokenizer: ComposedTokenizer, golden: dict[str, Tensor]
) -> None:
    pixels, tokens = golden["in.pixels"], golden["in.features"]
    torch.testing.assert_close(tokenizer.delta_encoder(pixels, tokens), golden["out.hz"], **close)
    latents = tokenizer.encode_features(pixels, tokens).latents
    torch.testing.assert_close(latents, golden["out.z"], **close)
    assert tokenizer.latent_decompressor is not None
    decoder_in = tokenizer.latent_decompressor(golden["out.z"])
    torch.testing.assert_close(decoder_in, golden["out.decoder_in"], **close)
    decoded = tokenizer.decoder(golden["out.decoder_in"])
    torch.testing.assert_close(decoded, golden["out.pixels"], **close)


@torch.no_grad()
def test_decode_is_the_reference_output_denormalized(
    tokenizer: ComposedTokenizer, golden: dict[str, Tensor]
) -> None:
    std = torch.tensor([0.5, 0.25, 0.2]).view(1, 3, 1, 1)
    mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    expected = golden["out.pixels"] * std + mean
    torch.testing.assert_close(tokenizer.decode(golden["out.z"]), expected, **close)
