"""The contract of modulators."""

from __future__ import annotations

import torch

from pae_framework.config import ModulatorConfig
from pae_framework.contracts import Encoder, Modulator
from pae_framework.promises import token_map_problem
from pae_framework.testing.expect import expect, expect_none
from pae_framework.testing.modules import expect_network
from pae_framework.testing.synthetic import synthetic_images


def check_modulator(modulator: Modulator, config: ModulatorConfig, encoder: Encoder) -> None:
    """Check a modulator that was built as ``Modulator(config, encoder)``.

    It turns tokens into tokens of the same shape, each image by itself, in training too. There is
    no randomness, and every weight learns.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(modulator, Modulator), f"{modulator!r} is no contracts.Modulator")
    with torch.no_grad():
        pixels = encoder.normalize(synthetic_images(3, encoder.image_size))
        tokens = encoder(pixels).tokens

    def build() -> Modulator:
        return type(modulator)(config, encoder)

    shape = tuple(tokens.shape)
    moved = expect_network(modulator, (pixels, tokens), shape, build, "the modulator")
    expect_none(token_map_problem(moved, pixels[:1], tokens[:1], encoder.grid))
