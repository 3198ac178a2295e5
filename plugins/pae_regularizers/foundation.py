"""VF: latents aligned with frozen features up to margins (VA-VAE, arXiv 2501.01423)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.layers import cosine_gram, map_to_tokens
from pae_regularizers.config import VFConfig


class VF(Regularizer):
    """``w_d L_distance + w_c L_cosine`` (VA-VAE's VF loss, as in LightningDiT's code).

    z' are the tokens of the latents after a learned 1x1 convolution C -> D without bias; f are the
    tokens of the frozen features:

    - L_distance = mean over images and pairs (i, j) of
      relu(|cos(z'_i, z'_j) - cos(f_i, f_j)| - m_d)
    - L_cosine = mean over images and tokens of relu(1 - m_c - cos(z'_i, f_i))

    A summand with weight 0 is not computed. With ``adaptive``, the engine multiplies by the ratio
    of gradient norms, which VA-VAE measures at the encoder's last convolution. f comes from
    ``tokenizer.teacher``, as in VA-VAE, else from the recipe's frozen encoder.

    Legend: B batch, N tokens, C latent channels, D width of the features.
    """

    def __init__(self, config: VFConfig):
        super().__init__(config)
        self.config = config
        self.adaptive = config.adaptive
        self.project: nn.Module | None = None

    def prepare(self, latent: LatentShape, width: int, target_channels: int | None) -> None:
        """Build the projection to the features' width D."""
        self.project = nn.Conv2d(latent.channels, width, kernel_size=1, bias=False)

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term."""
        assert self.project is not None, "call prepare first"
        config = self.config
        projected = map_to_tokens(self.project(inputs.posterior.latents).float())  # (B, N, D)
        features = inputs.features.float()  # (B, N, D)
        term = projected.new_zeros(())
        if config.distance_weight:
            gaps = (cosine_gram(projected) - cosine_gram(features)).abs()  # (B, N, N)
            term = term + config.distance_weight * F.relu(gaps - config.distance_margin).mean()
        if config.cosine_weight:
            cosines = F.cosine_similarity(projected, features, dim=-1)  # (B, N)
            term = term + config.cosine_weight * F.relu(1 - config.cosine_margin - cosines).mean()
        return term
