"""Parameters of the built-in evaluators. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from pae_framework.config import Count, EvaluatorConfig, PathText
from pae_framework.metrics.inception_settings import InceptionWeights
from pae_framework.system.files import file_problem


class ReconstructionConfig(EvaluatorConfig):
    """Reconstructions compared with their test images."""

    @property
    def needs(self) -> frozenset[str]:
        """Reconstructions, and a network for the Frechet distance."""
        return frozenset({"reconstructions", "extractor"})


class GenerationConfig(EvaluatorConfig):
    """Samples of the last and of earlier weights, compared with test or training images."""

    reference: Literal["test", "train"] = Field(
        "test",
        description="what samples are compared with: the test images, or all training images",
    )

    @property
    def needs(self) -> frozenset[str]:
        """Samples, a network for the Frechet distance, and the images of the reference."""
        train = {"training_images"} if self.reference == "train" else set()
        return frozenset({"samples", "extractor", *train})


class FewStepsConfig(GenerationConfig):
    """Samples of the last weights with few and with all solver steps."""


class InceptionMetricsConfig(InceptionWeights, EvaluatorConfig):
    """Samples compared with a reference in Inception features."""

    reference: PathText | None = Field(
        None,
        description="reference npz: of the ADM evaluator, pytorch-fid or `pae reference build`; "
        "null: the test images",
    )

    @property
    def needs(self) -> frozenset[str]:
        """Samples, and Inception."""
        return frozenset({"samples", "inception"})

    def files(self) -> Mapping[str, Path]:
        """The reference, and the weights if they are a local file."""
        reference = {} if self.reference is None else {"reference": Path(self.reference)}
        return {**super().files(), **{key: path.expanduser() for key, path in reference.items()}}

    def missing(self) -> str | None:
        """What is missing if the reference or the weights are not on this machine."""
        file = self.files().get("reference")
        if file is not None and (problem := file_problem(file)) is not None:
            return f"reference: {problem}; `pae reference build` writes one"
        return super().missing()

    def smoke(self) -> Self:
        """Random weights; the test images are the reference."""
        return self.model_copy(update={"reference": None, "weights": "none"})


class ADMConfig(InceptionMetricsConfig):
    """IS, FID, sFID, precision and recall of the samples, as the ADM evaluator defines them."""


class FidelityConfig(InceptionMetricsConfig):
    """FID, KID, IS, precision and recall of the samples, as torch-fidelity defines them."""


Radius = Annotated[float, Field(gt=0, le=1000)]
Draws = Annotated[int, Field(gt=0, le=10_000)]


class ManifoldConfig(EvaluatorConfig):
    """Diagnostics of the latent manifold (PAE, arXiv 2605.07915)."""

    images: Count = Field(500, description="random test images for SSC and LPC")
    ssc: bool = Field(True, description="spatial coherence of the tokens; needs masks")
    sigma: float = Field(
        0.2, ge=0.01, le=1000, description="SSC: temperature of the affinity exp(cosine / sigma)"
    )
    lpc: bool = Field(True, description="local continuity of the decoder")
    rhos: tuple[Radius, ...] = Field(
        (0.1, 0.5, 1.0, 2.0),
        min_length=1,
        max_length=100,
        description="LPC: lengths of the perturbations, as fractions of each token's length",
    )
    directions: Draws = Field(1, description="LPC: random directions per image")
    gsq: bool = Field(True, description="semantic organization of pooled latents")
    draws: Draws = Field(5, description="GSQ: random draws of images to average over")
    draw_images: Count | None = Field(
        None,
        gt=1,
        description="GSQ: images of a draw; null: half of the test images, or all images of 100 "
        "random classes if there are more classes",
    )
    erank: bool = Field(True, description="effective rank of the pooled latents")

    @property
    def needs(self) -> frozenset[str]:
        """Latents, and masks if SSC is on."""
        return frozenset({"latents", "masks"} if self.ssc else {"latents"})

    def check_images(self, count: int) -> None:
        """Reject more images than there are. The default takes all if there are fewer."""
        for key in ("images", "draw_images"):
            wanted = getattr(self, key)
            if wanted != type(self).model_fields[key].default and wanted > count:
                raise ValueError(f"`{key}` is {wanted}, but there are {count} test images")

    def smoke(self) -> Self:
        """Few images, one draw, one length of the perturbation."""
        smaller = {"images": 8, "rhos": self.rhos[:1], "draws": 1, "draw_images": None}
        return self.model_copy(update=smaller)
