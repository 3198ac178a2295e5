"""GAE's encoder, with the names of its released files.

Legend: B batch, N tokens, D width, C latent channels, S image side in px.
"""

from __future__ import annotations

from torch import Tensor, nn

from pae_encoders.gae_config import GaeEncoderConfig
from pae_framework.contracts import Encoder, Features
from pae_framework.layers import map_to_tokens
from pae_framework.swiglu import last_axis_norm, learned_positions, swiglu_blocks


class GaeEncoder(Encoder):
    """A vision transformer and the adapter that maps its tokens to the latent channels (GAE)."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, config: GaeEncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.foundation_encoder = GaeTransformer(config, self.grid)
        self.adapter = nn.ModuleDict({"model": nn.Linear(config.width, config.latent, bias=False)})

    def forward(self, pixels: Tensor) -> Features:
        """Tokens (B, N, C) of pixels (B, 3, S, S) in [-1, 1]; pooled: their mean."""
        tokens = self.adapter["model"](self.foundation_encoder(pixels))
        return Features(tokens, pooled=tokens.mean(dim=1))

    def last_layer(self) -> nn.Parameter:
        """The weight of the adapter."""
        weight = self.adapter["model"].weight
        assert isinstance(weight, nn.Parameter)
        return weight


class GaeTransformer(nn.Module):
    """Patches, learned positions, blocks, norm and output projection; no class token."""

    def __init__(self, config: GaeEncoderConfig, grid: int):
        super().__init__()
        width, patch = config.width, config.patch
        self.patch_embed = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        nn.init.kaiming_normal_(self.patch_embed.weight, mode="fan_out")
        self.pos_embed = learned_positions(grid, width)
        self.blocks = swiglu_blocks(config)
        self.proj_out = nn.Linear(width, width, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens (B, N, D) of pixels (B, 3, S, S)."""
        x = map_to_tokens(self.patch_embed(pixels)) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.proj_out(last_axis_norm(x))
