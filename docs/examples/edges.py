"""A modulator: adds what a blurred image lacks, its edges, to the tokens of their patches."""

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from pae_framework import hookimpl
from pae_framework.config import ModulatorConfig
from pae_framework.contracts import Modulator
from pae_framework.layers import map_to_tokens

pae_api = 1


class EdgesConfig(ModulatorConfig):
    """A box blur, and one convolution over patches of the difference."""

    reach: int = Field(1, gt=0, le=16, description="the blur averages 2 * reach + 1 px")


class Edges(Modulator):
    """One convolution over patches of the edges. It starts at zero: tokens are then unchanged."""

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.reach = config.reach
        self.embed = nn.Conv2d(3, encoder.width, encoder.patch, encoder.patch)
        nn.init.zeros_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def forward(self, pixels, tokens):
        """Tokens (B, N, D) from normalized pixels (B, 3, S', S') and tokens (B, N, D)."""
        blurred = F.avg_pool2d(pixels, 2 * self.reach + 1, stride=1, padding=self.reach)
        return tokens + map_to_tokens(self.embed(pixels - blurred))


@hookimpl
def pae_register_modulators(register):
    register(
        "edges",
        target=f"{__name__}:Edges",
        config=f"{__name__}:EdgesConfig",
        summary="adds the edges of each patch to its token",
    )
