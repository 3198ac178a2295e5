"""KL: keeps a gaussian bottleneck near the standard normal (Kingma and Welling, 2014)."""

from __future__ import annotations

from torch import Tensor

from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_regularizers.config import KLConfig


class KL(Regularizer):
    """``KL(N(mean, var) || N(0, 1)) = (mean^2 + var - 1 - log var) / 2`` per latent entry.

    The default is the mean over all entries, whose magnitude does not depend on the latents' shape.
    Latent diffusion and VA-VAE sum over each image and average over the batch (``reduction: sum``);
    their reconstruction term is a sum as well.
    """

    def __init__(self, config: KLConfig):
        super().__init__(config)
        self.reduction = config.reduction

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term, of a posterior with mean and log-variance, both (B, C, h, w)."""
        mean, logvar = inputs.posterior.mean, inputs.posterior.logvar
        assert mean is not None, "the config sets needs_moments"
        assert logvar is not None
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)  # (B, C, h, w)
        summed = self.reduction == "sum"
        return divergence.flatten(1).sum(1).mean() if summed else divergence.mean()
