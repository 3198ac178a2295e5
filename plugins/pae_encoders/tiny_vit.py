"""A small vision transformer that a run trains itself, and its pretraining objective.

Legend: B batch, N tokens, V visible tokens, D width, p patch, S image side.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_encoders.config import TinyViTConfig
from pae_encoders.random_crop import random_crop
from pae_framework.contracts import Encoder, Features, LossTerms, PretrainingObjective
from pae_framework.layers import Block, patchify, sincos_positions
from pae_framework.seeding import rand


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
            Block(config.width, config.heads, config.mlp_ratio, kernel=config.attention)
            for _ in range(config.depth)
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
        """Features of normalized pixels (B, 3, S, S)."""
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
        return MaskedObjective(self, num_classes)


class MaskedObjective(PretrainingObjective):
    """MAE (He et al., 2111.06377) with a linear classifier on the mean of the visible tokens.

    Both terms share one pass through the encoder, which sees a random subset of the tokens. A small
    decoder predicts the pixels of the hidden patches (squared error). A classifier predicts the
    class from the visible tokens. Unlike MAE, patches are not standardized: otherwise the tokens of
    a small ViT hardly differ within an image, and there is no structure to align with.
    """

    def __init__(self, encoder: TinyViT, num_classes: int):
        super().__init__()
        settings = encoder.settings
        self.encoder = encoder
        self.class_weight = settings.class_weight
        self.crop = settings.crop
        tokens = encoder.grid**2
        self.visible = max(1, tokens - round(settings.mask_ratio * tokens))
        self.mask_token = nn.Parameter(torch.randn(encoder.width) * 0.02)
        self.decoder = nn.Sequential(
            *(
                Block(encoder.width, encoder.heads, kernel=settings.attention)
                for _ in range(settings.decoder_depth)
            ),
            nn.LayerNorm(encoder.width, eps=1e-6),
            nn.Linear(encoder.width, 3 * encoder.patch**2),
        )
        self.classifier = nn.Sequential(
            nn.BatchNorm1d(encoder.width, affine=False), nn.Linear(encoder.width, num_classes)
        )

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> LossTerms:
        """Terms ``masked`` (mean squared error per hidden pixel) and ``class`` (nats, weighted)."""
        pixels = self.encoder.normalize(random_crop(images, self.crop, generator))
        order = random_orders(len(images), self.encoder.grid**2, generator).to(pixels.device)
        visible, hidden = order[:, : self.visible], order[:, self.visible :]  # (B, V), (B, N - V)

        tokens = self.encoder.encode(take_tokens(self.encoder.embed_patches(pixels), visible))
        predicted = self._predict_hidden(tokens, hidden)
        target = take_tokens(patchify(pixels, self.encoder.patch), hidden)  # (B, N - V, 3 p p)
        masked = F.mse_loss(predicted, target)
        if not self.class_weight:
            return {"loss": masked, "masked": masked}
        classes = F.cross_entropy(self.classifier(tokens.mean(dim=1)), labels)
        classes = self.class_weight * classes
        return {"loss": masked + classes, "masked": masked, "class": classes}

    def _predict_hidden(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Pixels (B, N - V, 3 p p) of the hidden patches, from the visible tokens (B, V, D)."""
        positions = self.encoder.positions.expand(len(tokens), -1, -1)
        queries = self.mask_token + take_tokens(positions, hidden)
        x = torch.cat([tokens, queries], dim=1)
        return self.decoder(x)[:, tokens.shape[1] :]


def random_orders(count: int, tokens: int, generator: torch.Generator) -> Tensor:
    """A random permutation of the tokens for each image, (B, N)."""
    return rand((count, tokens), generator).argsort(dim=1)


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """The tokens (B, n, D) at ``indices`` (B, n) of ``tokens`` (B, N, D)."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))
