"""MCR: rotating the latents changes the decoded images little (PAE, arXiv 2605.07915, section 3).

Legend: B batch, C latent channels, h = w grid side, S image side in px.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.tokenizer.rotation import random_tangent, rotate
from pae_regularizers.config import MCRConfig


class MCR(Regularizer):
    """Manifold continuity: ``d(x_m, sg(x_r)) + d(x_l, sg(x_m))``, sg the stop-gradient.

    x_r is the reconstruction. x_m and x_l are decoded from the latents after every token is rotated
    by 42.5 and 85 degrees towards a random direction of its own. d is the weighted sum of the
    recipe's reconstruction terms. Each decoded image is pulled towards the one of the next smaller
    angle. Gradients reach the decoder and, through the rotation, the latents (the paper only stops
    gradients at the references).
    """

    def __init__(self, config: MCRConfig):
        super().__init__(config)
        self.angles = [math.radians(angle) for angle in config.angles]
        self.cascade = config.mode == "cascade"

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term; the latents must have at least 2 channels (``MCRConfig.check_latent``)."""
        latents = inputs.posterior.latents  # (B, C, h, w)
        tangent = random_tangent(latents, inputs.generator)
        rotated = [rotate(latents, tangent, angle) for angle in self.angles]
        # One call for all angles: a decoder treats the images of a batch independently.
        decoded = inputs.decode(torch.cat(rotated)).chunk(len(rotated))  # each (B, 3, S, S)
        reference = inputs.reconstruction
        total = latents.new_zeros(())
        for images in decoded:
            total = total + inputs.distance(images, reference.detach())
            reference = images if self.cascade else reference
        return total
