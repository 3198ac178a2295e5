"""Parameters of the built-in regularizers. No torch."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pae_framework.config import Depth, LatentShape, RegularizerConfig, Weight, Width


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
        "both", description="compare the mean token, each token, or both (the terms are summed)"
    )


class MCRConfig(RegularizerConfig):
    """Manifold continuity regularizer (PAE; weight 0.5 there)."""

    needs_distance: ClassVar[bool] = True

    mode: Literal["cascade", "single"] = Field(
        "cascade",
        description="compare each decoded image with that of the next smaller angle (cascade) or "
        "with the reconstruction (single)",
    )
    angles: tuple[float, ...] = Field(
        (42.5, 85.0),
        min_length=1,
        max_length=100,
        description="rotations of every token, degrees, increasing",
    )

    @model_validator(mode="after")
    def _check_angles(self) -> MCRConfig:
        if not all(0 < angle < 180 for angle in self.angles):
            raise ValueError("`angles` must lie between 0 and 180 degrees")
        if any(low >= high for low, high in pairwise(self.angles)):
            raise ValueError("`angles` must increase")
        return self

    @property
    def decodes(self) -> int:
        """One per angle."""
        return len(self.angles)

    def check_latent(self, latent: LatentShape) -> None:
        """Reject latents of one channel, which cannot be rotated."""
        if latent.channels < 2:
            raise ValueError(
                f"rotates tokens and needs 2 channels or more, but latents are {latent}"
            )


class KLConfig(RegularizerConfig):
    """Kullback-Leibler divergence from the standard normal.

    Latent diffusion: the sum, with weight 1e-6 beside a sum of reconstruction errors over all pixel
    values. Beside their mean, that is 1e-6 / (3 S^2) for images of S px: 5.1e-12 for 256 px. Its
    images are in [-1, 1], so its L1 of weight 1 is `l1: 2` here.
    """

    needs_moments: ClassVar[bool] = True

    reduction: Literal["mean", "sum"] = Field(
        "mean", description="over the entries of the latents: their mean, or their sum per image"
    )


class VFConfig(RegularizerConfig):
    """Vision foundation model alignment (VA-VAE, arXiv 2501.01423).

    Its released tokenizer was trained in three phases: weight 0.5 and margins 0; weight 0.1; and
    finally with the margins that are the defaults here.
    """

    distance_margin: Weight = Field(
        0.25, description="m_d: differences of cosines up to this are not penalized"
    )
    cosine_margin: Weight = Field(0.5, description="m_c: cosines down to 1 - m_c are not penalized")
    distance_weight: Weight = Field(
        1.0, description="w_d: factor of the term on similarities between tokens"
    )
    cosine_weight: Weight = Field(
        1.0, description="w_c: factor of the term on the direction of each token"
    )
    adaptive: bool = Field(
        True,
        description="also multiply by |grad of reconstruction| / |grad of the term| at the last "
        "layer before the latents",
    )

    @property
    def needs_features(self) -> bool:
        """It aligns latents with them."""
        return True

    @property
    def adapts_weight(self) -> bool:
        """The value of ``adaptive``."""
        return self.adaptive

    @model_validator(mode="after")
    def _something_to_learn(self) -> VFConfig:
        if not self.distance_weight and not self.cosine_weight:
            raise ValueError(
                "`distance_weight` and `cosine_weight` are both 0; set `weight: 0` to switch the "
                "term off"
            )
        return self


class FeatureMSEConfig(RegularizerConfig):
    """Mean squared error between normalized latents and frozen features (GAE; weight 1 there)."""

    @property
    def needs_features(self) -> bool:
        """It compares latents with them."""
        return True


class DiffusionConfig(RegularizerConfig):
    """Auxiliary diffusion loss: a velocity network that is trained with the tokenizer.

    PAE compares with such a loss and does not describe its network; this one is ours.
    """

    width: Width = Field(256, description="width of the network, a multiple of 4 and of `heads`")
    depth: Depth = Field(2, description="number of its transformer blocks")
    heads: Width = Field(4, description="attention heads of each block")

    @model_validator(mode="after")
    def _check_width(self) -> DiffusionConfig:
        if self.width % 4 or self.width % self.heads:
            raise ValueError(
                f"`width` must be a multiple of 4 and of `heads` {self.heads}, not {self.width}"
            )
        return self

    def smoke(self) -> DiffusionConfig:
        """The smallest network."""
        return self.model_copy(update={"width": 16, "depth": 1, "heads": 2})
