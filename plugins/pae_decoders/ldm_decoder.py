"""Latent diffusion's convolutional decoder, with the names of its released files.

Legend: B batch, C latent channels, S image side in px, g x g tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_decoders.config import LdmDecoderConfig
from pae_framework.contracts import Decoder
from pae_framework.convolutions import Middle, Norm, UpLevel
from pae_framework.layers import tokens_to_map


class LdmDecoder(Decoder):
    """The decoder of latent diffusion's KL autoencoder (arXiv 2112.10752) and of VA-VAE.

    It begins with ``post_quant_conv``, a 1x1 convolution, which released files have beside the
    decoder; then blocks with attention in the middle, and levels that double the side.
    """

    def __init__(self, config: LdmDecoderConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        levels = config.decoder_levels()
        self.post_quant_conv = nn.Conv2d(width, width, kernel_size=1)
        self.conv_in = nn.Conv2d(width, config.middle, kernel_size=3, padding=1)
        self.mid = Middle(config.middle)
        # Released files count levels from the finest one.
        self.up = nn.ModuleList(UpLevel(level) for level in reversed(levels))
        self.norm_out = Norm(levels[-1].width)
        self.conv_out = nn.Conv2d(levels[-1].width, 3, kernel_size=3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), in [-1, 1] if images are, of tokens (B, g g, C)."""
        x = self.mid(self.conv_in(self.post_quant_conv(tokens_to_map(tokens))))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))

    def last_layer(self) -> nn.Parameter:
        """The weight of ``conv_out``."""
        weight = self.conv_out.weight
        assert isinstance(weight, nn.Parameter)
        return weight
