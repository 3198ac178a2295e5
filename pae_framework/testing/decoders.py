"""The contract of decoders."""

from __future__ import annotations

from torch import Tensor, nn

from pae_framework.config import DecoderConfig
from pae_framework.contracts import Decoder
from pae_framework.testing.expect import expect, expect_tensor
from pae_framework.testing.modules import (
    as_if_trained,
    expect_bf16,
    expect_gradients,
    expect_repeatable,
    expect_rows_apart,
)
from pae_framework.testing.state import expect_state
from pae_framework.testing.synthetic import draw


def check_decoder(decoder: Decoder, config: DecoderConfig, width: int, grid: int) -> None:
    """Check a decoder that was built as ``Decoder(config, width, grid)``.

    Images of the size its config says, each decoded by itself also while training (regularizers
    decode several versions of a batch in one call); no randomness; every weight learns;
    ``last_layer`` is one of its weights.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(decoder, Decoder), f"{decoder!r} is no pae_framework.contracts.Decoder")
    tokens = draw(3, grid**2, width, seed=0)
    moved = as_if_trained(decoder).train()

    def decode(tokens: Tensor) -> Tensor:
        out: Tensor = moved(tokens)
        return out

    size = config.image_size(grid)
    found = decode(tokens)
    expect_tensor(found, (3, 3, size, size), "the image (its side is what config.image_size says)")
    expect_repeatable(lambda: decode(tokens), "the decoder in train mode")
    expect_rows_apart(decode, tokens, what="the decoded image")
    expect_bf16(lambda: decode(tokens), "the decoder")
    expect_gradients(found, moved, "the decoder")
    _check_last_layer(moved)
    expect_state(moved, lambda: type(decoder)(config, width, grid), lambda module: module(tokens))


def _check_last_layer(decoder: Decoder) -> None:
    last = decoder.last_layer()
    expect(isinstance(last, nn.Parameter), "last_layer gives no parameter")
    mine = any(last is parameter for parameter in decoder.parameters() if parameter.requires_grad)
    expect(mine, "last_layer gives a weight that is not one of the decoder's trainable ones")
