"""A bottleneck: latents between -1 and 1, each rounded to one of a few levels.

Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505) with an odd number of levels.
"""

from pydantic import Field

from pae_framework import hookimpl
from pae_framework.config import BottleneckConfig, Width
from pae_framework.contracts import Bottleneck, Posterior

pae_api = 1


class RoundedConfig(BottleneckConfig):
    """2 * half + 1 levels of each channel."""

    channels: Width = Field(8, description="latent channels")
    half: int = Field(4, gt=0, le=127, description="levels on each side of 0")

    def latent_channels(self, token_width):
        """The channels."""
        return self.channels


class Rounded(Bottleneck):
    """Rounds; gradients pass as if it did not."""

    def __init__(self, config, width, grid):
        super().__init__(config, width, grid)
        self.in_channels = self.channels = config.channels
        self.half = config.half

    def forward(self, x, generator):
        """Latents (B, C, h, w) of x (B, C, h, w); nothing is random."""
        bounded = x.float().tanh()
        rounded = (bounded * self.half).round() / self.half
        return Posterior(bounded + (rounded - bounded).detach())


@hookimpl
def pae_register_bottlenecks(register):
    register(
        "rounded",
        target=f"{__name__}:Rounded",
        config=f"{__name__}:RoundedConfig",
        summary="a few levels of each latent channel",
    )
