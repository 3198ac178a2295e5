"""A small convolutional classifier whose features serve Frechet distances."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_encoders.config import SmallCNNConfig
from pae_encoders.random_crop import random_crop
from pae_framework.contracts import Encoder, Features, LossTerms, PretrainingObjective
from pae_framework.layers import map_to_tokens


class SmallCNN(Encoder):
    """Stages of two 3 x 3 convolutions, the first with stride 2.

    Group norm: the features of an image do not depend on its batch.
    """

    def __init__(self, config: SmallCNNConfig, image_size: int):
        super().__init__(config, image_size)
        self.grid = config.token_grid(image_size)
        self.width, self.patch = config.token_width(), config.patch
        self.heads = max(1, self.width // 32)
        self.mean = self.std = (0.5, 0.5, 0.5)
        self.crop = config.crop
        channels = [3, *(config.width << stage for stage in range(config.depth))]
        self.stages = nn.ModuleList(
            nn.Sequential(
                _convolution(before, after, stride=2), _convolution(after, after, stride=1)
            )
            for before, after in pairwise(channels)
        )

    def _maps(self, pixels: Tensor) -> Iterator[Tensor]:
        x = pixels
        for stage in self.stages:
            x = stage(x)
            yield x

    def forward(self, pixels: Tensor) -> Features:
        """Tokens: the last feature map, each position normalized; pooled: its plain mean."""
        *_, last = self._maps(pixels)
        tokens = map_to_tokens(last)
        return Features(F.layer_norm(tokens, (self.width,)), pooled=tokens.mean(dim=1))

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Tokens (B, n, d) after each stage; n falls and d rises."""
        return (map_to_tokens(x) for x in self._maps(pixels))

    def pretraining(self, num_classes: int) -> PretrainingObjective:
        """Classification by a linear layer on the pooled features."""
        return Classification(self, num_classes)


class Classification(PretrainingObjective):
    """Cross-entropy of a linear layer on an encoder's pooled features."""

    def __init__(self, encoder: SmallCNN, num_classes: int):
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.width, num_classes)

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> LossTerms:
        """Term ``class`` in nats."""
        crops = random_crop(images, self.encoder.crop, generator)
        pooled = self.encoder(self.encoder.normalize(crops)).pooled
        loss = F.cross_entropy(self.classifier(pooled), labels)
        return {"loss": loss, "class": loss}


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, after),
        nn.ReLU(inplace=True),
    )
