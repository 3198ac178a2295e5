"""A discriminator: the same small network judges images at full and at half size."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from pae_framework import hookimpl
from pae_framework.config import DiscriminatorConfig, Width
from pae_framework.contracts import Discriminator
from pae_framework.seeding import rand

pae_api = 1


class TwoScalesConfig(DiscriminatorConfig):
    """Two convolutions; the first has 4 x 4 px."""

    width: Width = Field(16, description="channels")

    def check_image_size(self, image_size):
        """At half size an image needs 4 px."""
        if image_size < 8:
            raise ValueError(f"images of {image_size} px; at least 8 px are needed")


class TwoScales(Discriminator):
    """No normalization, so images do not depend on each other."""

    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.layers = nn.Sequential(
            nn.Conv2d(3, config.width, 4, stride=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(config.width, 1, 3, padding=1),
        )

    def forward(self, images):
        """Logits (B, M) of images (B, 3, S, S) in [0, 1]; high means real."""
        scales = (2 * images - 1, 2 * F.avg_pool2d(images, 2) - 1)
        return torch.cat([self.layers(scale).flatten(1) for scale in scales], dim=1)

    def augment(self, images, generator):
        """Mirror half of the images."""
        chance = rand((len(images), 1, 1, 1), generator).to(images.device)
        return torch.where(chance < 0.5, images.flip(3), images)


@hookimpl
def pae_register_discriminators(register):
    register(
        "two_scales",
        target=f"{__name__}:TwoScales",
        config=f"{__name__}:TwoScalesConfig",
        summary="one network at full and at half size",
    )
