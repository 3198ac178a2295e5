"""Settings and sizes of GAE's vision transformers. No torch."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from pae_framework.config import Depth, Settings, Side, Width


class SwigluSettings(Settings):
    """Transformer without biases, with gated MLPs and learned positions; GAE's ViT-L."""

    width: Width = Field(1024, description="token width inside the network")
    depth: Depth = Field(24, description="transformer blocks")
    heads: Width = Field(16, description="attention heads; divides `width`")
    patch: Side = Field(16, description="side in px of the image patch of a token")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `width` {self.width}")
        return self

    def network_parameters(self, grid: int, ends: int) -> int:
        """Parameters of positions and blocks, and of linear layers with ``ends`` rows of width."""
        width = self.width
        block = 4 * width**2 + 3 * gated_width(width) * width
        return grid**2 * width + self.depth * block + ends * width

    def network_activations(self, grid: int) -> int:
        """Numbers that blocks and last norm keep for the backward pass, per image.

        Per token of a block: both norms' inputs and outputs, q and k before and after their norms,
        v, and what attention gives (10 D); both branches of the MLP, the silu and the product
        (4 F). The last norm has an input and an output (2 D).
        """
        block = 10 * self.width + 4 * gated_width(self.width)
        return grid**2 * (self.depth * block + 2 * self.width)

    def shrunk(self) -> dict[str, Any]:
        """Settings of a smoke run: one narrow block."""
        return {"width": 32, "depth": 1, "heads": 2}


def gated_width(width: int) -> int:
    """F, the hidden width of the MLPs: 8/3 of ``width``, rounded up to a multiple of 256."""
    return -(-int(width * 4 * 2 / 3) // 256) * 256
