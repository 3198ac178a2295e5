"""SSR and SCR: latents aligned with the prior target (PAE, arXiv 2605.07915, section 3).

Both compare only the directions of tokens, except that the norms of the target's tokens enter the
pooled term of SCR. Legend: B batch, N tokens, C latent channels, C' target channels; z latents, Z_T
targets.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.layers import cosine_gram, map_to_tokens
from pae_regularizers.config import SCRConfig, SSRConfig


class SSR(Regularizer):
    """Spatial structure: ``|G(z) - G(Z_T)|_F^2``, G the Gram matrix of l2-normalized tokens.

    The paper writes the Frobenius norm (``reduction: sum``; per image, mean over the batch). Its
    code is not published. The default is the mean over the N x N entries, whose magnitude does not
    depend on the number of tokens.
    """

    def __init__(self, config: SSRConfig):
        super().__init__(config)
        self.reduction = config.reduction

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term. Latents and target may have different numbers of channels."""
        latents = map_to_tokens(inputs.posterior.latents)  # (B, N, C)
        squares = (cosine_gram(latents) - cosine_gram(_target(inputs))).square()  # (B, N, N)
        return squares.mean() if self.reduction == "mean" else squares.sum(dim=(1, 2)).mean()


class SCR(Regularizer):
    """Semantic consistency: ``(1 - cos(pool Z_T, pool z)) + mean_n (1 - cos(Z_T,n, z_n))``.

    ``pool`` is the mean token. Both terms are means over the batch; ``level`` can select one.

    Cosines need equal numbers of channels. If the target has another number than the latents (raw
    features; the paper's Table 2b does not say how), a learned 1x1 convolution without bias maps z
    to the target's channels, as in VA-VAE (``reverse_proj``). The target is not projected: both
    sides could collapse to a constant otherwise.
    """

    def __init__(self, config: SCRConfig):
        super().__init__(config)
        self.level = config.level
        self.project: nn.Module = nn.Identity()

    def prepare(self, latent: LatentShape, width: int, target_channels: int | None) -> None:
        """Build the projection if latents and target have different numbers of channels."""
        assert target_channels is not None
        if target_channels != latent.channels:
            self.project = nn.Conv2d(latent.channels, target_channels, kernel_size=1, bias=False)

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The term."""
        latents = map_to_tokens(self.project(inputs.posterior.latents).float())  # (B, N, C')
        target = _target(inputs)  # (B, N, C')
        pooled = _misalignment(latents.mean(dim=1), target.mean(dim=1))
        if self.level == "pooled":
            return pooled
        tokens = _misalignment(latents, target)
        return tokens if self.level == "tokens" else pooled + tokens


def _target(inputs: RegularizerInputs) -> Tensor:
    """The target as tokens (B, N, C')."""
    assert inputs.target is not None, "the config sets needs_target"
    return map_to_tokens(inputs.target).float()


def _misalignment(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cos over all vectors (..., C)."""
    return 1 - F.cosine_similarity(a, b, dim=-1).mean()
