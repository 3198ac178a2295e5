"""The modulator `none`: the encoder's tokens go to the bottleneck unchanged (RAE)."""

from __future__ import annotations

from torch import Tensor

from pae_framework.contracts import Encoder, Modulator
from pae_modulators.config import NoModulatorConfig


class NoModulator(Modulator):
    """Leaves the tokens as they are (RAE)."""

    def __init__(self, config: NoModulatorConfig, encoder: Encoder):
        super().__init__(config, encoder)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """The tokens (B, N, D), untouched."""
        return tokens
