"""Parameters of the built-in evaluators. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pae_framework.config import Count, EvaluatorConfig, PathText
from pae_framework.hub import HubFile
from pae_framework.metrics.fdr6 import CACHE, NETWORKS, RANDOM
from pae_framework.metrics.inception import identify
from pae_framework.metrics.inception_settings import InceptionWeights, OptionalInceptionWeights
from pae_framework.system.files import file_problem


class ReconstructionConfig(OptionalInceptionWeights, EvaluatorConfig):
    """Reconstructions compared with their test images."""

    worst: int = Field(
        8, ge=0, le=100, description="reconstructions of lowest PSNR in the picture `worst.png`"
    )
    frechet: bool = Field(
        True, description="also the Frechet distance in the features of the recipe's `extractor`"
    )

    @property
    def needs(self) -> frozenset[str]:
        """Reconstructions, and networks for the Frechet distances."""
        networks = {"extractor"} if self.frechet else set()
        networks |= set() if self.weights is None else {"inception"}
        return frozenset({"reconstructions", *networks})


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


_TEST_IMAGES = "test"
_UNSET = (
    "no reference is set; set `reference` to a file, such as `pae reference build RECIPE:train "
    f"--out train.npz` writes of the training images, or to `{_TEST_IMAGES}` for the test images"
)


class InceptionMetricsConfig(InceptionWeights, EvaluatorConfig):
    """Samples compared with a reference in Inception features."""

    reference: PathText | None = Field(
        None,
        description="reference npz: of the ADM evaluator, pytorch-fid or `pae reference build`; "
        "`test`: the test images; must be set",
    )

    @property
    def needs(self) -> frozenset[str]:
        """Samples, and Inception."""
        return frozenset({"samples", "inception"})

    @property
    def reference_file(self) -> Path | None:
        """The reference; None: the test images, also if an earlier version left it unset."""
        if self.reference in (None, _TEST_IMAGES):
            return None
        return Path(str(self.reference)).expanduser()

    def hashed(self) -> dict[str, Any]:
        """Without the reference if it is the test images: earlier versions left it unset."""
        values = super().hashed()
        if self.reference_file is None:
            values.pop("reference", None)
        return values

    def files(self) -> Mapping[str, Path]:
        """The reference, and the weights if they are a local file."""
        file = self.reference_file
        return {**super().files(), **({} if file is None else {"reference": file})}

    def missing(self) -> str | None:
        """What is missing if no reference is set, or it or the weights are not on this machine."""
        reference = _UNSET if self.reference is None else None
        if (file := self.reference_file) is not None and (problem := file_problem(file)):
            reference = f"reference: {problem}; `pae reference build` writes one"
        found = "; ".join(filter(None, (reference, super().missing())))
        return f"{found}; or leave this evaluator out (set it to null)" if found else None

    def smoke(self) -> Self:
        """Random weights; the test images are the reference."""
        return self.model_copy(update={"reference": _TEST_IMAGES, "weights": "none"})


class ADMConfig(InceptionMetricsConfig):
    """IS, FID, sFID, precision and recall of the samples, as the ADM evaluator defines them."""


class FidelityConfig(InceptionMetricsConfig):
    """FID, KID, IS, precision and recall of the samples, as torch-fidelity defines them."""

    fdr6: PathText | None = Field(
        None,
        description="also FDr6, against all training images; weights of its five networks of "
        "timm's: `default`: from the cache of the hub; a folder with files `<model>.safetensors`; "
        "`none`: random weights, and the metric is called random; null: no FDr6",
    )

    @model_validator(mode="after")
    def _has_published_inception(self) -> Self:
        if self.weights == RANDOM and self.fdr6 not in (None, RANDOM):
            raise ValueError(
                "FDr6 needs the published Inception weights; set `weights` to default, or `fdr6` "
                "to none (random networks) or null"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        """Samples, Inception, and the training images for FDr6."""
        training = frozenset() if self.fdr6 is None else {"training_images"}
        return super().needs | training

    def files(self) -> Mapping[str, Path]:
        """The reference, the weights, and the folder of FDr6's weights, if they are local."""
        if self.fdr6 in (None, RANDOM, CACHE):
            return super().files()
        return {**super().files(), "fdr6": Path(str(self.fdr6)).expanduser()}

    def missing(self) -> str | None:
        """What is missing if the reference or weights are not on this machine."""
        if (problem := super().missing()) is not None or self.fdr6 is None:
            return problem
        if self.fdr6 != RANDOM and not self._published():
            return f"FDr6 needs the published Inception weights, not {self.weights}; set fdr6=null"
        found = [network.missing(self.fdr6) for network in NETWORKS.values()]
        absent = [problem for problem in found if problem is not None]
        if not absent:
            return None
        return f"FDr6 lacks weights ({'; '.join(absent)}); run `pae fetch RECIPE` or set fdr6=null"

    def _published(self) -> bool:
        file = super().files().get("weights")
        return file is None or identify(file).published

    def fetch(self) -> str | None:
        """Download the weights if they are missing."""
        fetched = [super().fetch()]
        for network in NETWORKS.values() if self.fdr6 == CACHE else ():
            file = network.file(CACHE)
            if isinstance(file, HubFile) and file.cached() is None:
                file.fetch()
                fetched.append(file.where)
        return ", ".join(filter(None, fetched)) or None

    def smoke(self) -> Self:
        """Without FDr6, whose networks are large."""
        return super().smoke().model_copy(update={"fdr6": None})


class InterpolationConfig(OptionalInceptionWeights, EvaluatorConfig):
    """Images half-way between latents and their neighbors (iFID, arXiv 2603.05630)."""

    neighbors: Annotated[int, Field(gt=0, le=1000)] = Field(
        10, description="nearest training latents of a test image, of which one is drawn"
    )

    @property
    def needs(self) -> frozenset[str]:
        """Latents, and networks for the Frechet distances."""
        networks = {"extractor"} if self.weights is None else {"extractor", "inception"}
        return frozenset({"latents", "train_latents", *networks})

    def check_training_images(self, count: int) -> None:
        """Reject more neighbors than there are training images, each of which has one latent."""
        if self.neighbors > count:
            raise ValueError(
                f"`neighbors` is {self.neighbors}, but there are {count} training images; set "
                f"`neighbors` to {count} or less"
            )

    def smoke(self) -> Self:
        """Two neighbors; random weights, if any."""
        return super().smoke().model_copy(update={"neighbors": 2})


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

    def check_classes(self, count: int) -> None:
        """GSQ compares classes."""
        if self.gsq and count < 2:
            raise ValueError("GSQ compares classes, but there is one; set `gsq: false`")

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
