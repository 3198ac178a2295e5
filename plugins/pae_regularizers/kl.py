"""KL: what keeps a gaussian bottleneck near the standard normal (Kingma and Welling, 2014)."""

from __future__ import annotations

from torch import Tensor

from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.errors import UsageError
from pae_regularizers.config import KLConfig


class KL(Regularizer):
    """``KL(N(mean, var) || N(0, 1)) = (mean^2 + var - 1 - log var) / 2`` per latent entry.

    By default the mean over all entries, whose size does not depend on the latent's shape. Latent
    diffusion and VA-VAE sum over each image and take the mean over the batch (``reduction: sum``),
    next to a reconstruction term that is summed too.
    """

    def __init__(self, config: KLConfig):
        super().__init__(config)
        self.reduction = config.reduction

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term.

        Raises:
            UsageError: the bottleneck has no mean and variance.
        """
        mean, logvar = inputs.posterior.mean, inputs.posterior.logvar
        if mean is None or logvar is None:
            raise UsageError("kl needs a bottleneck with a mean and a variance (`gaussian`)")
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
        return (
            divergence.mean() if self.reduction == "mean" else divergence.flatten(1).sum(1).mean()
        )
