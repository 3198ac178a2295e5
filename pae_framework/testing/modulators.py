"""The contract of modulators."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.config import ModulatorConfig
from pae_framework.contracts import Encoder, Modulator
from pae_framework.testing.expect import expect, expect_tensor
from pae_framework.testing.modules import (
    as_if_trained,
    expect_bf16,
    expect_gradients,
    expect_repeatable,
    expect_rows_apart,
)
from pae_framework.testing.state import expect_state
from pae_framework.testing.synthetic import synthetic_images


def check_modulator(modulator: Modulator, config: ModulatorConfig, encoder: Encoder) -> None:
    """Check a modulator that was built as ``Modulator(config, encoder)``.

    Tokens in, tokens of the same shape out, each image for itself also while training; all
    randomness is ruled out; every weight learns.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(modulator, Modulator), f"{modulator!r} is no contracts.Modulator")
    with torch.no_grad():
        pixels = encoder.normalize(synthetic_images(3, encoder.image_size))
        tokens = encoder(pixels).tokens
    moved = as_if_trained(modulator).train()

    def modulate(pixels: Tensor, tokens: Tensor) -> Tensor:
        out: Tensor = moved(pixels, tokens)
        return out

    found = modulate(pixels, tokens)
    expect_tensor(found, tuple(tokens.shape), "what the modulator makes of the tokens")
    expect_repeatable(lambda: modulate(pixels, tokens), "the modulator")
    expect_rows_apart(modulate, pixels, tokens, what="the modulated tokens")
    expect_bf16(lambda: modulate(pixels, tokens), "the modulator")
    expect_gradients(found, moved, "the modulator")
    expect_state(
        moved, lambda: type(modulator)(config, encoder), lambda module: module(pixels, tokens)
    )
