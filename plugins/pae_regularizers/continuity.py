"""MCR: decodes change little as latents are rotated (PAE, arXiv 2605.07915, section 3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.errors import UsageError
from pae_framework.seeding import on_device
from pae_regularizers.config import MCRConfig


class MCR(Regularizer):
    """Manifold continuity: ``d(x_m, sg(x_r)) + d(x_l, sg(x_m))``, sg the stop-gradient.

    x_r is the reconstruction; x_m and x_l decode the latents after every token is turned by 42.5
    and 85 degrees along one random direction of its own; d is the recipe's reconstruction distance
    (L1 and perceptual). Each decode learns to be like its nearer neighbour, never the other way
    round. Gradients reach the decoder and, through the rotation, the latents (the paper stops
    gradients at the references only).
    """

    def __init__(self, config: MCRConfig):
        super().__init__(config)
        self.angles = [math.radians(angle) for angle in config.angles]
        self.cascade = config.mode == "cascade"

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term.

        Raises:
            UsageError: latents of one channel, which have no direction to turn to.
        """
        latents = inputs.posterior.latents
        if latents.shape[1] < 2:
            raise UsageError("mcr rotates tokens and needs at least 2 latent channels")
        direction = random_tangent(latents, inputs.generator)
        rotated = [rotate(latents, direction, angle) for angle in self.angles]
        # All angles in one call: a decoder treats each image of a batch by itself.
        decoded = inputs.decode(torch.cat(rotated)).chunk(len(rotated))
        reference = inputs.reconstruction
        total = latents.new_zeros(())
        for images in decoded:
            total = total + inputs.distance(images, reference.detach())
            reference = images if self.cascade else reference
        return total


def random_tangent(z: Tensor, generator: torch.Generator) -> Tensor:
    """For each token z of (B, C, h, w) a u with u . z = 0 and |u| = |z|, uniform in direction."""
    noise = torch.randn(z.shape, generator=generator, device=generator.device)
    noise = on_device(noise, z.device).to(z.dtype)
    unit = F.normalize(z, dim=1)
    tangent = noise - unit * (noise * unit).sum(dim=1, keepdim=True)
    return F.normalize(tangent, dim=1) * z.norm(dim=1, keepdim=True)


def rotate(z: Tensor, tangent: Tensor, angle: float) -> Tensor:
    """cos(angle) z + sin(angle) u: z turned by ``angle`` (radians) towards a tangent of its length.

    The same point as z + tan(angle) u brought back to |z|, the way the paper writes it.
    """
    return math.cos(angle) * z + math.sin(angle) * tangent
