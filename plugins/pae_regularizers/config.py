"""Parameters of the built-in regularizers. No torch."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pae_framework.config import LatentShape, RegularizerConfig


class SSRConfig(RegularizerConfig):
    """Spatial structure regularizer (PAE; weight 0.2 there)."""

    needs_target: ClassVar[bool] = True

    reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="over the N x N entries: their mean, or their sum (squared Frobenius norm)",
    )


class SCRConfig(RegularizerConfig):
    """Semantic consistency regularizer (PAE; weight 1.0 there)."""

    needs_target: ClassVar[bool] = True

    level: Literal["both", "pooled", "tokens"] = Field(
        "both", description="compare the mean token, each token, or both (their terms add up)"
    )


class MCRConfig(RegularizerConfig):
    """Manifold continuity regularizer (PAE; weight 0.5 there)."""

    needs_distance: ClassVar[bool] = True

    mode: Literal["cascade", "single"] = Field(
        "cascade",
        description="compare each decode with that of the angle before it (cascade), or each with "
        "the reconstruction (single)",
    )
    angles: tuple[float, ...] = Field(
        (42.5, 85.0), min_length=1, description="rotation of every token, degrees, growing"
    )

    @model_validator(mode="after")
    def _growing(self) -> MCRConfig:
        if not all(0 < angle < 180 for angle in self.angles):
            raise ValueError("`angles` must lie between 0 and 180 degrees")
        if any(low >= high for low, high in pairwise(self.angles)):
            raise ValueError("`angles` must grow")
        return self

    @property
    def decodes(self) -> int:
        """One for each angle."""
        return len(self.angles)

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents of one channel, which have no direction to turn to."""
        if latent.channels < 2:
            raise ValueError(f"rotates tokens of 2 channels or more, but the latents are {latent}")


class KLConfig(RegularizerConfig):
    """Kullback-Leibler divergence from the standard normal (latent diffusion: sum, weight 1e-6)."""

    needs_moments: ClassVar[bool] = True

    reduction: Literal["mean", "sum"] = Field(
        "mean", description="over the latent's entries: their mean, or their sum per image"
    )


class VFConfig(RegularizerConfig):
    """Vision foundation model alignment (VA-VAE, arXiv 2501.01423).

    Its released tokenizer was trained with weight 0.5 and margins 0, then with weight 0.1, last
    with the margins that are the defaults here.
    """

    distance_margin: float = Field(
        0.25, ge=0, description="m_d: differences of cosines up to it are free"
    )
    cosine_margin: float = Field(0.5, ge=0, description="m_c: cosines down to 1 - m_c are free")
    distance_weight: float = Field(
        1.0, ge=0, description="w_d: factor of the term on how alike tokens are to each other"
    )
    cosine_weight: float = Field(
        1.0, ge=0, description="w_c: factor of the term on where each token points"
    )
    adaptive: bool = Field(
        True,
        description="also multiply by |grad of reconstruction| / |grad of the term| at the last "
        "layer before the latents",
    )

    @property
    def adapts_weight(self) -> bool:
        """As ``adaptive`` says."""
        return self.adaptive

    @model_validator(mode="after")
    def _something_to_learn(self) -> VFConfig:
        if not self.distance_weight and not self.cosine_weight:
            raise ValueError(
                "`distance_weight` and `cosine_weight` are both 0; to switch the term off say "
                "`weight: 0`"
            )
        return self
