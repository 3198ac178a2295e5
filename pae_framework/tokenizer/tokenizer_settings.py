"""Settings of the tokenizer's reconstruction terms and of prior refinement. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from pae_framework.config import (
    Depth,
    EncoderConfig,
    LayerIndex,
    Magnitude,
    PathText,
    Settings,
    Side,
    Weight,
    Width,
)
from pae_framework.hub import (
    HubFile,
    UrlFile,
    default_or_file,
    missing_weights,
    weights_files,
    weights_path,
)
from pae_framework.training.train_settings import TrainSettings


class ReconstructionTermSettings(Settings):
    """Settings of one reconstruction term, and its size and cost.

    A term whose weight is 0 is off and not in :attr:`ReconstructionSettings.active_terms`. The
    default methods are for a term without a network. A term with files also defines ``missing`` and
    ``fetch`` (see :class:`~pae_framework.config.ComponentConfig`).
    """

    number_means = "weight"

    weight: Weight = Field(0.0, description="weight of the term; 0: off")

    smallest_image: ClassVar[int] = 1
    """Side in px of the smallest images that the term can compare."""

    def parameters(self) -> int | None:
        """Number of parameters of its own network; None if unknown."""
        return 0

    def activations(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Numbers kept for the backward pass, per reconstruction; None if unknown."""
        return 0

    def flops(self, image_size: int, encoder_flops: EncoderFlops) -> float:
        """FLOPs to compute the compared features of one image."""
        return 0


EncoderFlops = Callable[[int | None], int]
"""FLOPs of the frozen encoder's first n blocks for one image; of all blocks with None."""


class PerceptualSettings(ReconstructionTermSettings):
    """A distance of the frozen encoder's features, in place of LPIPS."""

    weight: Weight = Field(1.0, description="weight of the term; 0: off")
    layers: tuple[LayerIndex, ...] | None = Field(
        None, min_length=1, description="compared encoder blocks, counted from 0; null: all"
    )

    def activations(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Activations of the encoder; its parameters are counted elsewhere."""
        return encoder.activations(image_size)

    def flops(self, image_size: int, encoder_flops: EncoderFlops) -> float:
        """FLOPs of the encoder up to the last compared layer."""
        return encoder_flops(None if self.layers is None else max(self.layers) + 1)

    def __str__(self) -> str:
        layers = self.layers
        which = "all layers" if layers is None else f"layers {', '.join(map(str, layers))}"
        return f"distance of the frozen encoder's features, {which} (a stand-in for LPIPS)"


VGG16 = HubFile("timm/vgg16.tv_in1k")
"""VGG-16 with torchvision's weights: LPIPS's network."""

LPIPS_HEADS = UrlFile(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth"
)
"""LPIPS's channel weights, version 0.1 for VGG-16."""

_VGG_PARAMETERS = 14_714_688
_VGG_ACTIVATIONS = 600
"""Per px: 270 outputs of VGG-16's 13 convolutions, and LPIPS's normalized features of five."""
_VGG_FLOPS = 2 * 15.35e9 / 224**2
"""Per px: 15.35 G multiply-adds at 224 x 224 in the convolutions."""


class LpipsNetwork(Settings):
    """LPIPS (Zhang et al. 2018) on VGG-16 features, with its learned channel weights."""

    # VGG-16 halves the image four times before its last features
    smallest_image: ClassVar[int] = 16

    weights: Annotated[PathText, AfterValidator(default_or_file)] = Field(
        "default",
        description="`default`: VGG-16 from the hub and channel weights from torch-fidelity; a "
        "local file with both, named as in torchvision or LPIPS; `none`: random",
    )

    def files(self) -> Mapping[str, Path]:
        """The weights, if they are a local file."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """See :meth:`ComponentConfig.missing`."""
        problems = (missing_weights(self.weights, remote) for remote in (VGG16, LPIPS_HEADS))
        problem = next(filter(None, problems), None)
        return f"LPIPS: {problem}" if problem else None

    def fetch(self) -> str | None:
        """See :meth:`ComponentConfig.fetch`."""
        if self.missing() is None:
            return None
        for remote in (VGG16, LPIPS_HEADS):
            weights_path(self.weights, remote)
        return "weights of LPIPS"

    def __str__(self) -> str:
        if self.weights == "none":
            return "distance of LPIPS's network with random weights (a stand-in for LPIPS)"
        return f"LPIPS (VGG-16, weights: {self.weights})"


class LpipsSettings(LpipsNetwork, ReconstructionTermSettings):
    """LPIPS as a term of the loss."""

    def parameters(self) -> int:
        """Parameters of VGG-16."""
        return _VGG_PARAMETERS

    def activations(self, encoder: EncoderConfig, image_size: int) -> int:
        """Activations of VGG-16."""
        return _VGG_ACTIVATIONS * image_size**2

    def flops(self, image_size: int, encoder_flops: EncoderFlops) -> float:
        """FLOPs of VGG-16."""
        return _VGG_FLOPS * image_size**2


class ReconstructionSettings(Settings):
    """Reconstruction terms of the tokenizer's loss."""

    l1: Weight = Field(1.0, description="weight of the mean absolute pixel error")
    perceptual: PerceptualSettings = PerceptualSettings()
    lpips: LpipsSettings = LpipsSettings()

    @property
    def terms(self) -> dict[str, ReconstructionTermSettings]:
        """Every term by name, in the order of the sum, including ``l1``, a number in recipes."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {
            name: value
            if isinstance(value, ReconstructionTermSettings)
            else ReconstructionTermSettings(weight=value)
            for name, value in values
        }

    @property
    def active_terms(self) -> dict[str, ReconstructionTermSettings]:
        """The terms with a weight other than 0, by name."""
        return {name: term for name, term in self.terms.items() if term.weight}

    @property
    def perceptual_metric(self) -> str:
        """The term that evaluators use as perceptual distance: LPIPS if it is active."""
        return "lpips" if "lpips" in self.active_terms else "perceptual"


DISCRIMINATOR_TERMS = ("discriminator", "logits_real", "logits_fake")
"""Log columns of the discriminator: its loss and mean logits for real and generated images."""

ADVERSARIAL = "adversarial"
"""Name of the adversarial term in the log."""

FACTOR = "_weight"
"""Suffix of the log column with the factor of an adaptive term."""

_ADVERSARIAL_COLUMNS = (*DISCRIMINATOR_TERMS, ADVERSARIAL, ADVERSARIAL + FACTOR)
TERM_COLUMNS = (*ReconstructionSettings.model_fields, *_ADVERSARIAL_COLUMNS)
"""Log columns of all terms of the loss but the regularizers, whose labels name theirs."""


_ANYUP_RELEASES = {
    "anyup": ("checkpoint", "anyup_paper.pth"),
    "anyup_multi_backbone": ("checkpoint_v2", "anyup_multi_backbone.pth"),
}


class AnyUpSettings(Settings):
    """Local files of AnyUp, a learned upsampler of features; nothing is downloaded.

    Code and weights have the license CC-BY-4.0: whoever publishes results names the authors.
    """

    checkout: PathText = Field(description="folder of its repository, with hubconf.py")
    weights: PathText = Field(description="its weights file")
    model: Literal["anyup", "anyup_multi_backbone"] = Field(
        "anyup",
        description="anyup: the paper's, trained on features of DINOv2-S; anyup_multi_backbone: "
        "trained on those of DINOv2, CLIP, SigLIP and ViT-B",
    )

    def files(self) -> Mapping[str, Path]:
        """The weights."""
        return {"weights": Path(self.weights).expanduser()}

    def missing(self) -> str | None:
        """See :meth:`ComponentConfig.missing`."""
        folder = Path(self.checkout).expanduser()
        if not (folder / "hubconf.py").is_file():
            return (
                f"no AnyUp checkout at {folder}: it has no hubconf.py; clone wimmerth/anyup "
                "(CC-BY-4.0) there or set tokenizer.refinement.upsampler=bilinear"
            )
        file = Path(self.weights).expanduser()
        if file.exists():
            return None
        tag, name = _ANYUP_RELEASES[self.model]
        return (
            f"no AnyUp weights at {file}; download {name} (CC-BY-4.0) from release `{tag}` of "
            "wimmerth/anyup"
        )


class RefinementSettings(Settings):
    """Prior refinement: learns compact targets from the frozen features (PAE, section 3)."""

    depth: Depth = Field(4, description="number of blocks of the deprojector")
    width: Width | None = Field(
        None, multiple_of=4, description="width of the deprojector; null: that of the encoder"
    )
    heads: Width | None = Field(
        None,
        description="attention heads, a divisor of the width; null: those of the encoder",
    )
    reproduction: Weight = Field(1.0, description="weight of |Q(Z) - H|^2, averaged over entries")
    gram: Weight = Field(
        1.0, description="weight of |Gram(Z) - Gram(H_ref)|^2, averaged over entries"
    )
    upsampler: Literal["none", "bilinear", "anyup"] = Field(
        "none",
        description="upsampling of the features before H_ref is normalized and resized to the "
        "token grid; anyup: a learned upsampler, as in the paper",
    )
    upsample_size: Side | None = Field(
        None, description="side of the upsampled features, px; null: that of the images"
    )
    anyup: AnyUpSettings | None = Field(None, description="files of AnyUp, for `upsampler: anyup`")
    low_pass: float = Field(
        0.4, ge=0, le=1, description="strength of the low-pass spatial normalization of H_ref"
    )
    low_pass_size: Magnitude | None = Field(
        None,
        description="standard deviation, in tokens, of the Gaussian low pass; null: the mean over "
        "the image",
    )
    spatial_norm: float = Field(
        0.0,
        ge=0,
        le=1,
        description="after the low pass, H_ref is divided by this power of each channel's standard "
        "deviation over the image; 0: not divided, 1: unit deviations",
    )
    unbiased: bool = Field(
        False,
        description="the deviation of `spatial_norm` is the unbiased one; with `spatial_norm: 1` "
        "as in iREPA's code",
    )
    antialias: bool = Field(
        False, description="upsampled features are resized to the token grid with antialiasing"
    )
    centre: bool = Field(False, description="first subtract the mean of the features over the data")
    train: TrainSettings

    @model_validator(mode="after")
    def _has_a_term(self) -> RefinementSettings:
        if not self.reproduction and not self.gram:
            raise ValueError("`reproduction` and `gram` are both 0; set reproduction=1")
        return self

    @model_validator(mode="after")
    def _has_anyup(self) -> RefinementSettings:
        if self.upsampler == "anyup" and self.anyup is None:
            raise ValueError(
                "`upsampler: anyup` needs `anyup: {checkout: <folder>, weights: <file>}`"
            )
        return self

    def missing(self) -> str | None:
        """See :meth:`ComponentConfig.missing`."""
        return self.anyup.missing() if self.upsampler == "anyup" and self.anyup else None

    def smoke(self) -> RefinementSettings:
        """A small version that needs no files."""
        small = {"depth": 1, "width": None, "heads": None, "upsampler": "none", "anyup": None}
        return self.model_copy(update=small)
