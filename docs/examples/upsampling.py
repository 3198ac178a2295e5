"""A decoder: doubles the side of the map of tokens until it has the size of the images."""

from pydantic import Field
from torch import nn

from pae_framework import hookimpl
from pae_framework.config import DecoderConfig, Width
from pae_framework.contracts import Decoder
from pae_framework.layers import tokens_to_map

pae_api = 1


class UpsamplingConfig(DecoderConfig):
    """Convolutions at every size."""

    width: Width = Field(32, description="channels")
    doublings: int = Field(2, ge=0, le=6, description="a token becomes 2^doublings px wide")

    def image_size(self, grid):
        """Side of the images, px."""
        return grid * 2**self.doublings

    def smoke(self):
        """Eight channels."""
        return self.model_copy(update={"width": 8})


class Upsampling(Decoder):
    """Nearest neighbors and a convolution, `doublings` times."""

    def __init__(self, config, width, grid):
        super().__init__(config, width, grid)
        layers = [nn.Conv2d(width, config.width, 1)]
        for _ in range(config.doublings):
            convolution = nn.Conv2d(config.width, config.width, 3, padding=1)
            layers += [nn.GELU(), nn.Upsample(scale_factor=2), convolution]
        self.layers = nn.Sequential(*layers, nn.GELU())
        self.to_pixels = nn.Conv2d(config.width, 3, 3, padding=1)

    def forward(self, tokens):
        """Normalized pixels (B, 3, S, S) from tokens (B, N, width)."""
        return self.to_pixels(self.layers(tokens_to_map(tokens)))

    def last_layer(self):
        """The weight whose gradients determine adaptive loss weights."""
        return self.to_pixels.weight


@hookimpl
def pae_register_decoders(register):
    register(
        "upsampling",
        target=f"{__name__}:Upsampling",
        config=f"{__name__}:UpsamplingConfig",
        summary="convolutions that double the side of the map",
    )
