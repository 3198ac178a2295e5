"""A frozen network with whose features regularizers align the latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.contracts import Encoder


class Teacher(nn.Module):
    """Features of a pretrained encoder that is not the tokenizer's.

    Args:
        encoder: with its weights.
        signed: whether it is given images in [-1, 1], resized bilinearly without antialiasing, as
            VA-VAE's code does whatever the network was trained with; else its own preprocessing.
    """

    def __init__(self, encoder: Encoder, signed: bool):
        super().__init__()
        self.encoder, self.signed = encoder, signed

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D) of images (B, 3, S, S) in [0, 1]; without gradient."""
        pixels = self.encoder.normalize(images)
        if self.signed:
            pixels = F.interpolate(2 * images - 1, pixels.shape[-2:], mode="bilinear")
        tokens: Tensor = self.encoder(pixels).tokens
        return tokens
