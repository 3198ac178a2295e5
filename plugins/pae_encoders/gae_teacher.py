"""GAE's semantic teacher: DINOv2's tokens, compressed to few channels by a network of the run.

Legend: B batch, N tokens, D width of DINOv2, C channels, S' side of DINOv2's input, w window side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_encoders.gae_config import GaeTeacherConfig
from pae_encoders.vfm import DINOv2
from pae_framework.contracts import Encoder, Features, LossTerms, PretrainingObjective
from pae_framework.layers import map_to_tokens, patchify, tokens_to_map, unpatchify
from pae_framework.swiglu import (
    NormedAttention,
    SwigluBlock,
    last_axis_norm,
    learned_positions,
)


class GaeTeacher(Encoder):
    """Frozen DINOv2, an attention without residual, and a linear layer over windows of tokens.

    GAE's DINOv2 has a learned scale and shift in its last norm, which ours omits.
    """

    def __init__(self, config: GaeTeacherConfig, image_size: int):
        super().__init__(config, image_size)
        self.base = DINOv2(config, image_size).requires_grad_(False)
        self.mean, self.std, self.patch = self.base.mean, self.base.std, self.base.patch
        width, self.window, self.channels = self.base.width, config.window, config.channels
        self.positions = learned_positions(self.grid, width)
        self.attention = NormedAttention(width, config.neck_heads)
        area = config.window**2
        self.compressor = nn.Linear(area * width, area * config.channels, bias=False)

    def normalize(self, images: Tensor) -> Tensor:
        """DINOv2's input (B, 3, S', S') of images (B, 3, S, S) in [0, 1]."""
        return self.base.normalize(images)

    def forward(self, pixels: Tensor) -> Features:
        """Tokens (B, N, C) of norm sqrt(C), of normalized pixels; pooled: their mean."""
        tokens = self.compress(self.targets(pixels))
        return Features(tokens, pooled=tokens.mean(dim=1))

    def targets(self, pixels: Tensor) -> Tensor:
        """DINOv2's tokens (B, N, D), each with its RMS norm."""
        return last_axis_norm(self.base(pixels).tokens)

    def compress(self, targets: Tensor) -> Tensor:
        """Tokens (B, N, C) of norm sqrt(C), of targets (B, N, D)."""
        x = self.attention(last_axis_norm(targets + self.positions))
        windows = patchify(tokens_to_map(last_axis_norm(x)), self.window)  # (B, N / w w, w w D)
        compressed = unpatchify(self.compressor(windows), self.window, self.channels)
        return last_axis_norm(map_to_tokens(compressed))

    def load_pretrained(self) -> None:
        """Load DINOv2's weights; see :class:`pae_framework.contracts.Encoder`."""
        self.base.load_pretrained()

    def pretraining(self, num_classes: int) -> PretrainingObjective:
        """Reconstruction of DINOv2's tokens."""
        return SemanticObjective(self)


class SemanticObjective(PretrainingObjective):
    """Mean squared error of DINOv2's normalized tokens, which one block decodes (GAE)."""

    def __init__(self, encoder: GaeTeacher):
        super().__init__()
        width = encoder.base.width
        self.encoder = encoder
        self.positions = learned_positions(encoder.grid, width)
        self.expand = nn.Linear(encoder.width, width, bias=False)
        self.block = SwigluBlock(width, encoder.attention.heads)

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> LossTerms:
        """The error; labels and generator are unused."""
        targets = self.encoder.targets(self.encoder.normalize(images))  # (B, N, D)
        x = self.expand(self.encoder.compress(targets)) + self.positions
        return {"loss": F.mse_loss(last_axis_norm(self.block(x)).float(), targets.float())}
