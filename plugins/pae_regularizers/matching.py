"""FeatureMSE: latents equal to frozen features (GAE, arXiv 2603.10365)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.layers import rms_norm, tokens_to_map
from pae_regularizers.config import FeatureMSEConfig


class FeatureMSE(Regularizer):
    """Mean of ``(rms(z) - rms(f))^2`` over tokens and channels, rms the norm over the channels.

    f are frozen features: those of ``tokenizer.teacher``, as in GAE, else the encoder's. z are the
    latents before the bottleneck's noise. If both have other numbers of channels, a learned 1x1
    convolution without bias first maps z to the features' number, as in SCR.

    GAE publishes the term, but not the training that calls it. That it compares the latents, and
    not an earlier layer, is inferred.
    """

    def __init__(self, config: FeatureMSEConfig):
        super().__init__(config)
        self.project: nn.Module = nn.Identity()

    def prepare(self, latent: LatentShape, width: int, target_channels: int | None) -> None:
        """Build the projection if latents and features have different numbers of channels."""
        if width != latent.channels:
            self.project = nn.Conv2d(latent.channels, width, kernel_size=1, bias=False)

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term."""
        posterior = inputs.posterior
        latents = posterior.latents if posterior.mean is None else posterior.mean
        features = tokens_to_map(inputs.features)  # (B, D, h, w)
        return F.mse_loss(rms_norm(self.project(latents)), rms_norm(features))
