"""Latent diffusion's convolutional encoder, with the names of its released files.

Legend: B batch, C latent channels, S image side in px, g x g tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_encoders.ldm_config import LdmEncoderConfig
from pae_framework.contracts import Encoder, Features
from pae_framework.convolutions import DownLevel, Middle, Norm
from pae_framework.layers import map_to_tokens


class LdmEncoder(Encoder):
    """The encoder of latent diffusion's KL autoencoder (arXiv 2112.10752) and of VA-VAE.

    Residual blocks, with halved sides between levels; then blocks with attention in the middle; the
    last is ``quant_conv``, a 1x1 convolution, which released files have beside the encoder. Tokens
    are the mean and the log-variance of every latent entry.
    """

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, config: LdmEncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.conv_in = nn.Conv2d(3, config.channels, kernel_size=3, padding=1)
        self.down = nn.ModuleList(DownLevel(level) for level in config.encoder_levels())
        self.mid = Middle(config.middle)
        self.norm_out = Norm(config.middle)
        self.conv_out = nn.Conv2d(config.middle, self.width, kernel_size=3, padding=1)
        self.quant_conv = nn.Conv2d(self.width, self.width, kernel_size=1)

    def forward(self, pixels: Tensor) -> Features:
        """Tokens (B, g g, 2 C) of pixels (B, 3, S, S) in [-1, 1]; pooled: their mean."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        tokens = map_to_tokens(self.quant_conv(x))
        return Features(tokens, pooled=tokens.mean(dim=1))

    def last_layer(self) -> nn.Parameter:
        """The weight of ``conv_out``, where VA-VAE measures its adaptive weight."""
        weight = self.conv_out.weight
        assert isinstance(weight, nn.Parameter)
        return weight
