"""The components."""

import torch
from torch import nn

from pae_framework.contracts import DataSource, Generator, LabeledImage, Modulator


class Stripes(DataSource):
    """Stripes across (class 0) or down (class 1); the period depends on the image's number."""

    @property
    def class_names(self):
        """Names of the two classes."""
        return ["across", "down"]

    def __len__(self):
        return self.config.count

    def __getitem__(self, index):
        """An image (3, S, S) uint8 and its label."""
        if index < 0 or index >= len(self):
            raise IndexError(index)
        number = self.config.first + index
        label, period = number % 2, 2 + number // 2 % 5
        stripes = 255 * (torch.arange(self.image_size) // period % 2)
        rows = stripes[:, None] if label == 0 else stripes[None, :]
        image = rows.expand(3, self.image_size, self.image_size)
        return LabeledImage(image.to(torch.uint8).contiguous(), label)


class Gain(Modulator):
    """Multiplies each channel of the tokens by a learned factor."""

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.factors = nn.Parameter(torch.ones(encoder.width))

    def forward(self, pixels, tokens):
        """Tokens (B, N, D)."""
        return tokens * self.factors


class Pointwise(Generator):
    """Velocity at a position from the latent there, time and label."""

    def __init__(self, config, latent, num_classes):
        super().__init__(config, latent, num_classes)
        self.labels = nn.Embedding(num_classes + 1, config.width)
        self.enter = nn.Conv2d(latent.channels, config.width, 1)
        self.leave = nn.Conv2d(config.width, latent.channels, 1)

    def forward(self, x, t, y):
        """Velocity (B, C, h, w)."""
        condition = self.labels(y) + t[:, None]
        return self.leave(torch.tanh(self.enter(x) + condition[:, :, None, None]))
