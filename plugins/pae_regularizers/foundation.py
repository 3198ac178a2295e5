"""VF: latents aligned with the encoder's features up to margins (VA-VAE, arXiv 2501.01423)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.layers import cosine_gram, map_to_tokens
from pae_regularizers.channels import channel_map
from pae_regularizers.config import VFConfig


class VF(Regularizer):
    """``w_d L_distance + w_c L_cosine`` (VA-VAE's VF loss, as LightningDiT's code has it).

    With z' the latents under a learned 1x1 convolution d -> D without bias and f the frozen
    features, both tokens:

    - L_distance = mean over images and pairs (i, j) of
      relu(|cos(z'_i, z'_j) - cos(f_i, f_j)| - m_d)
    - L_cosine = mean over images and tokens of relu(1 - m_c - cos(z'_i, f_i))

    A part whose weight is 0 is not computed. ``adaptive`` leaves the ratio of gradient norms,
    which VA-VAE takes at the encoder's last convolution, to the engine. VA-VAE aligns with the
    features of a model beside its encoder; here they are those of the recipe's frozen encoder.
    """

    def __init__(self, config: VFConfig):
        super().__init__(config)
        self.config = config
        self.adaptive = config.adaptive
        self.project: nn.Module | None = None

    def prepare(self, latent: LatentShape, width: int, target_channels: int | None) -> None:
        """Make the projection to the features' width D."""
        self.project = channel_map(latent.channels, width)

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term."""
        assert self.project is not None, "the engine prepares a term before training"
        config = self.config
        projected = map_to_tokens(self.project(inputs.posterior.latents).float())
        features = inputs.features.float()
        term = projected.new_zeros(())
        if config.distance_weight:
            apart = (cosine_gram(projected) - cosine_gram(features)).abs()
            term = term + config.distance_weight * F.relu(apart - config.distance_margin).mean()
        if config.cosine_weight:
            cosines = F.cosine_similarity(projected, features, dim=-1)
            term = term + config.cosine_weight * F.relu(1 - config.cosine_margin - cosines).mean()
        return term
