"""GAE's decoder, with the names of its released files.

Legend: B batch, N tokens, C latent channels, P patch side and S image side in px.
"""

from __future__ import annotations

from torch import Tensor, nn

from pae_decoders.config import GaeDecoderConfig
from pae_framework.contracts import Decoder
from pae_framework.layers import unpatchify
from pae_framework.swiglu import last_axis_norm, learned_positions, swiglu_blocks


class GaeDecoder(Decoder):
    """Input projection, learned positions, blocks, norm and a linear head (GAE)."""

    def __init__(self, config: GaeDecoderConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.patch = config.patch
        self.z_proj = nn.Linear(width, config.width, bias=False)
        self.pos_embed = learned_positions(grid, config.width)
        self.blocks = swiglu_blocks(config)
        self.linear_out = nn.Linear(config.width, 3 * config.patch**2, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), in [-1, 1] if images are, of tokens (B, N, C)."""
        x = self.z_proj(tokens) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return unpatchify(self.linear_out(last_axis_norm(x)), self.patch)

    def last_layer(self) -> nn.Parameter:
        """The weight (3 P P, width) of the head."""
        weight = self.linear_out.weight
        assert isinstance(weight, nn.Parameter)
        return weight
