"""Inception-v3 as an encoder; as extractor of a recipe, Frechet distances are in its features.

Legend: B images of a batch, S image side in px.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import layer_norm

from pae_encoders.config import InceptionConfig
from pae_framework.contracts import Encoder, Features
from pae_framework.metrics.inception import RANDOM, WeightsIdentity
from pae_framework.metrics.inception_network import (
    Inception,
    load_inception,
    resized,
    standardized,
)


class InceptionEncoder(Encoder):
    """The TensorFlow network of 2015-12-05, by torch-fidelity."""

    config: InceptionConfig
    mean = std = (128 / 255,) * 3

    def __init__(self, config: InceptionConfig, image_size: int):
        super().__init__(config, image_size)
        self.grid = config.token_grid(image_size)
        self.width, self.heads = config.token_width(), config.token_heads()
        self.patch = Inception.INPUT_IMAGE_SIZE
        self.network = Inception()
        self.weights = WeightsIdentity(RANDOM)

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels (B, 3, 299, 299) of images (B, 3, S, S), resized as TensorFlow 1 does."""
        return standardized(resized(images * 255))

    def forward(self, pixels: Tensor) -> Features:
        """The pooled features (B, 2048) of FID, and one token (B, 1, 2048) made of them."""
        pooled = self.network.features(pixels).pool
        return Features(layer_norm(pooled, (self.width,))[:, None], pooled)

    def distance_label(self, label: str, name: str) -> str:
        """``gFID`` with the published weights only."""
        if self.weights.published:
            return label.replace("FD", "FID")
        return f"{label} ({self.weights.words})"

    def load_pretrained(self) -> None:
        """Load the weights, unless they are to be random."""
        if self.config.weights != RANDOM:
            self.weights = load_inception(self.network, self.config.weights)
