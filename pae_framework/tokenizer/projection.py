"""Projector and deprojector: between tokens of width D and maps of few channels (PAE, section 3).

Both are Sequentials, so that their parts carry the key names of the released checkpoints:
``latent_compressor.0`` is the attention and ``.1`` the convolution; in ``latent_decompressor`` the
other way round.
"""

from __future__ import annotations

from torch import Tensor, nn

from pae_framework.layers import Attention, map_to_tokens, tokens_to_map


class Projector(nn.Sequential):
    """One attention, then a 3x3 convolution. No residual, pre-norm or position code (as released).

    Args:
        width: D of the tokens.
        heads: attention heads.
        channels: d of the map.
    """

    def __init__(self, width: int, heads: int, channels: int):
        super().__init__(
            Attention(width, heads, qkv_bias=False),
            nn.Conv2d(width, channels, kernel_size=3, padding=1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, d, g, g)."""
        attention, convolution = self
        return convolution(tokens_to_map(attention(tokens)))


class Deprojector(nn.Sequential):
    """A 3x3 convolution, then one attention: the projector's mirror image.

    Args:
        channels: d of the map.
        width: D of the tokens.
        heads: attention heads.
    """

    def __init__(self, channels: int, width: int, heads: int):
        super().__init__(
            nn.Conv2d(channels, width, kernel_size=3, padding=1),
            Attention(width, heads, qkv_bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, g, g) to (B, N, D)."""
        convolution, attention = self
        return attention(map_to_tokens(convolution(x)))
