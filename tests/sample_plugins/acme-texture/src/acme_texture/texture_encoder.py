"""The encoder `texture`."""

import torch
import torch.nn.functional as F
from torch import nn

from pae_framework.contracts import Encoder, Features
from pae_framework.layers import map_to_tokens


class Texture(Encoder):
    """One convolution over patches of an image and of its local contrast."""

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.embed = nn.Conv2d(4, self.width, self.patch, self.patch)

    def forward(self, pixels):
        """Tokens (B, N, D) of normalized pixels (B, 3, S, S)."""
        gray = pixels.mean(1, keepdim=True)
        edges = (gray - F.avg_pool2d(gray, 3, stride=1, padding=1)).abs()
        tokens = map_to_tokens(self.embed(torch.cat([pixels, edges], dim=1)))
        return Features(F.layer_norm(tokens, (self.width,)))
