"""A generator: an MLP-Mixer over the positions of the latent (arXiv 2105.01601)."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from pae_framework import hookimpl
from pae_framework.config import Depth, GeneratorConfig, Width
from pae_framework.contracts import Generator

pae_api = 1


class MixerConfig(GeneratorConfig):
    """Width and number of blocks."""

    width: Width = Field(64, description="channels at each position")
    depth: Depth = Field(4, description="number of blocks")

    def smoke(self):
        """One narrow block."""
        return self.model_copy(update={"width": 8, "depth": 1})


class Mixer(Generator):
    """Layers over positions and over channels take turns."""

    def __init__(self, config, latent, num_classes):
        super().__init__(config, latent, num_classes)
        width, positions = config.width, latent.side**2
        self.labels = nn.Embedding(num_classes + 1, width)  # the last one: no label
        self.time = nn.Linear(2, width)
        self.enter = nn.Linear(latent.channels, width)
        self.over_positions = nn.ModuleList(
            nn.Linear(positions, positions) for _ in range(config.depth)
        )
        self.over_channels = nn.ModuleList(nn.Linear(width, width) for _ in range(config.depth))
        self.leave = nn.Linear(width, latent.channels)

    def forward(self, x, t, y):
        """Velocity (B, C, h, w) at x (B, C, h, w), time t (B,), labels y (B,)."""
        condition = self.labels(y) + self.time(torch.stack([t, torch.cos(3 * t)], dim=1))
        h = self.enter(x.flatten(2).mT) + condition[:, None]  # (B, h * w, width)
        for positions, channels in zip(self.over_positions, self.over_channels, strict=True):
            h = h + positions(F.gelu(F.layer_norm(h, h.shape[2:])).mT).mT
            h = h + channels(F.gelu(F.layer_norm(h, h.shape[2:]) + condition[:, None]))
        return self.leave(h).mT.reshape(x.shape)


@hookimpl
def pae_register_generators(register):
    register(
        "mixer",
        target=f"{__name__}:Mixer",
        config=f"{__name__}:MixerConfig",
        summary="an MLP-Mixer over latent positions",
    )
