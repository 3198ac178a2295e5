"""The tokenizer `latents`: a folder of latents without encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.contracts import Posterior, Tokenizer
from pae_framework.errors import UsageError
from pae_tokenizers.config import LatentsConfig


class LatentsOnly(Tokenizer):
    """Has the shape of latents that are on disk, and neither encodes nor decodes."""

    def __init__(self, config: LatentsConfig, image_size: int):
        super().__init__()
        self.latent = config.latent_shape(image_size)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """It has no encoder."""
        raise UsageError("the tokenizer `latents` does not encode")

    def decode(self, latents: Tensor) -> Tensor:
        """It has no decoder."""
        raise UsageError("the tokenizer `latents` does not decode")
