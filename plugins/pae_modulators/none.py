"""The modulator `none`: the encoder's tokens go to the bottleneck unchanged (RAE)."""

from __future__ import annotations

from torch import Tensor

from pae_framework.contracts import Modulator


class NoModulator(Modulator):
    """Returns the encoder's tokens unchanged (RAE)."""

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """The tokens (B, N, D)."""
        return tokens
