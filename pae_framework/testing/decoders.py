"""The contract of decoders."""

from __future__ import annotations

from torch import nn

from pae_framework.config import DecoderConfig
from pae_framework.contracts import Decoder
from pae_framework.promises import map_order_problem
from pae_framework.testing.expect import expect, expect_none
from pae_framework.testing.modules import expect_network
from pae_framework.testing.synthetic import normal


def check_decoder(decoder: Decoder, config: DecoderConfig, width: int, grid: int) -> None:
    """Check a decoder that was built as ``Decoder(config, width, grid)``.

    Images must have the size its config gives. Each is decoded by itself, in training too
    (regularizers decode several versions of a batch in one call). There is no randomness, every
    weight learns, and ``last_layer`` is one of the weights.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(decoder, Decoder), f"{decoder!r} is no contracts.Decoder")
    tokens, size = normal(3, grid**2, width, seed=0), config.image_size(grid)

    def build() -> Decoder:
        return type(decoder)(config, width, grid)

    moved = expect_network(decoder, (tokens,), (3, 3, size, size), build, "the decoder")
    expect_none(map_order_problem(moved, tokens[:1], grid, "the pixels"))
    _check_last_layer(moved)


def _check_last_layer(decoder: Decoder) -> None:
    last = decoder.last_layer()
    expect(isinstance(last, nn.Parameter), "last_layer must give a parameter")
    trainable = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    own = any(last is parameter for parameter in trainable)
    expect(own, "last_layer must give a trainable weight of the decoder")
