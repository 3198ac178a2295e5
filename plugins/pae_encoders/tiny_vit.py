"""A small vision transformer that a run can train for itself."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from pae_encoders.config import TinyViTConfig
from pae_framework.contracts import Encoder, Features, PretrainingObjective
from pae_framework.layers import Block, patchify, sincos_positions


class TinyViT(Encoder):
    """Pre-norm ViT: patches, fixed positions, blocks, a norm without affine; no class token."""

    positions: Tensor

    def __init__(self, config: TinyViTConfig, image_size: int):
        super().__init__(config, image_size)
        self.settings = config
        self.grid = config.token_grid(image_size)
        self.width, self.heads, self.patch = config.width, config.heads, config.patch
        self.mean = self.std = (0.5, 0.5, 0.5)
        self.embed = nn.Linear(3 * config.patch**2, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=False)
        self.register_buffer(
            "positions", sincos_positions(self.grid, config.width), persistent=False
        )

    def embed_patches(self, pixels: Tensor) -> Tensor:
        """Patches with their positions (B, N, D), before the first block."""
        return self.embed(patchify(pixels, self.patch)) + self.positions

    def encode(self, x: Tensor) -> Tensor:
        """All blocks and the last norm, on any subset of the tokens (B, n, D)."""
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, pixels: Tensor) -> Features:
        """Features of normalised pixels (B, 3, S, S)."""
        tokens = self.encode(self.embed_patches(pixels))
        return Features(tokens, pooled=tokens.mean(dim=1))

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Tokens (B, N, D) after each block."""
        x = self.embed_patches(pixels)
        for block in self.blocks:
            x = block(x)
            yield x

    def pretraining(self, num_classes: int) -> PretrainingObjective:
        """Masked autoencoding plus classification."""
        # Imported here: frozen encoders never need it.
        from pae_encoders.masked_objective import MaskedObjective

        return MaskedObjective(self, num_classes)
