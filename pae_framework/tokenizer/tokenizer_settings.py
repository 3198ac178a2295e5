"""Settings of the tokenizer's reconstruction terms and of prior refinement. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from pae_framework.config import EncoderConfig, Settings
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
    """Settings of one reconstruction term, and what the engine needs to know of it.

    A term with weight 0 is off: it is not in :attr:`ReconstructionSettings.active_terms`, which the
    engine iterates over. The defaults are those of a term without a network.
    """

    weight: float = Field(0.0, ge=0, description="factor of the term; 0 switches it off")

    smallest_image: ClassVar[int] = 1
    """Side in px of the smallest images the term can compare."""

    def parameters(self) -> int | None:
        """Number of parameters of the term's own network; None if unknown."""
        return 0

    def activations(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Numbers kept for the backward pass per image; None if unknown."""
        return 0

    def flops(self, image_size: int, encoder_flops: EncoderFlops) -> float:
        """FLOPs that compute the compared features of one image."""
        return 0

    def missing(self) -> str | None:
        """What is not on this machine; see :meth:`ComponentConfig.missing`."""
        return None

    def fetch(self) -> str | None:
        """Download what is missing; see :meth:`ComponentConfig.fetch`."""
        return None


EncoderFlops = Callable[[int | None], int]
"""FLOPs of the frozen encoder's first n blocks for one image; None: of all blocks."""


class PerceptualSettings(ReconstructionTermSettings):
    """A distance in the frozen encoder's own features: a stand-in for LPIPS, not LPIPS."""

    weight: float = Field(1.0, ge=0, description="factor of the term")
    layers: tuple[NonNegativeInt, ...] | None = Field(
        None, min_length=1, description="encoder blocks to compare, counted from 0; null: all"
    )

    def activations(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Those of the encoder."""
        return encoder.activations(image_size)

    def flops(self, image_size: int, encoder_flops: EncoderFlops) -> float:
        """Those of the encoder up to the last layer that is compared."""
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
"""Per px: 270 outputs of VGG-16's 13 convolutions, and LPIPS's normalised features of five."""
_VGG_FLOPS = 2 * 15.35e9 / 224**2
"""Per px: 15.35 G multiply-adds at 224 x 224 in the convolutions."""


class LpipsSettings(ReconstructionTermSettings):
    """LPIPS (Zhang et al. 2018) on VGG-16 features, with its learned channel weights."""

    smallest_image = 16  # VGG-16 halves images four times before its last features

    weights: Annotated[str, AfterValidator(default_or_file)] = Field(
        "default",
        description="`default`: VGG-16 from the hub with the channel weights of torch-fidelity's "
        "release; a local file of both, with torchvision's or LPIPS's names; `none`: random",
    )

    def files(self) -> Mapping[str, Path]:
        """The file of the weights, if it is a local one."""
        return weights_files(self.weights)

    def parameters(self) -> int:
        """VGG-16's."""
        return _VGG_PARAMETERS

    def activations(self, encoder: EncoderConfig, image_size: int) -> int:
        """VGG-16's."""
        return _VGG_ACTIVATIONS * image_size**2

    def flops(self, image_size: int, encoder_flops: EncoderFlops) -> float:
        """VGG-16's."""
        return _VGG_FLOPS * image_size**2

    def missing(self) -> str | None:
        """Names weights that are not on this machine."""
        for remote in (VGG16, LPIPS_HEADS):
            if (problem := missing_weights(self.weights, remote)) is not None:
                return f"LPIPS: {problem}"
        return None

    def fetch(self) -> str | None:
        """Download the weights."""
        if self.missing() is None:
            return None
        for remote in (VGG16, LPIPS_HEADS):
            weights_path(self.weights, remote)
        return "weights of LPIPS"

    def __str__(self) -> str:
        return f"LPIPS (VGG-16, weights: {self.weights})"


class ReconstructionSettings(Settings):
    """Reconstruction terms of the tokenizer's loss."""

    l1: float = Field(1.0, ge=0, description="weight of the mean absolute pixel error")
    perceptual: PerceptualSettings = PerceptualSettings()
    lpips: LpipsSettings = LpipsSettings()

    @property
    def terms(self) -> dict[str, ReconstructionTermSettings]:
        """Every term by name, in the order of the sum. ``l1`` is a plain number in recipes."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {
            name: value
            if isinstance(value, ReconstructionTermSettings)
            else ReconstructionTermSettings(weight=value)
            for name, value in values
        }

    @property
    def active_terms(self) -> dict[str, ReconstructionTermSettings]:
        """The terms whose weight is not 0, by name."""
        return {name: term for name, term in self.terms.items() if term.weight}

    @property
    def judge(self) -> str:
        """The evaluators' perceptual distance: LPIPS if it is an active term."""
        return "lpips" if "lpips" in self.active_terms else "perceptual"


DISCRIMINATOR_TERMS = ("discriminator", "logits_real", "logits_fake")
"""Log columns of the discriminator: its loss and the mean logits of both sides."""

ADVERSARIAL = "adversarial"
"""Log column of the adversarial term."""

FACTOR = "_weight"
"""Suffix that turns an adaptive term's name into the log column of its factor."""


class AnyUpSettings(Settings):
    """Local files of AnyUp, a learned upsampler of features; nothing is downloaded."""

    checkout: str = Field(description="folder of its repository, with its hubconf.py")
    weights: str = Field(description="file of its weights")

    def files(self) -> Mapping[str, Path]:
        """The weights."""
        return {"weights": Path(self.weights).expanduser()}

    def missing(self) -> str | None:
        """What is not on this machine; None if nothing is missing."""
        folder = Path(self.checkout).expanduser()
        if not (folder / "hubconf.py").is_file():
            return (
                f"no AnyUp checkout at {folder} (no hubconf.py); clone the repository "
                "wimmerth/anyup there, or set tokenizer.refinement.upsampler=bilinear"
            )
        file = Path(self.weights).expanduser()
        if file.is_file():
            return None
        return f"no AnyUp weights at {file}; download them from the repository's releases"


class RefinementSettings(Settings):
    """Prior refinement: compact targets learned from the frozen features (PAE, section 3)."""

    depth: int = Field(4, gt=0, description="blocks of the deprojector")
    width: int | None = Field(
        None, gt=0, multiple_of=4, description="its width; null: the encoder's"
    )
    heads: int | None = Field(
        None, gt=0, description="its heads; must divide its width; null: the encoder's"
    )
    reproduction: float = Field(1.0, ge=0, description="weight of |Q(Z) - H|^2, mean per entry")
    gram: float = Field(
        1.0, ge=0, description="weight of |Gram(Z) - Gram(H_ref)|^2, mean per entry"
    )
    upsampler: Literal["none", "bilinear", "anyup"] = Field(
        "none",
        description="upsampler of the features before H_ref is normalised and downsampled to the "
        "token grid; anyup: a learned one, as in the paper",
    )
    upsample_size: int | None = Field(
        None, gt=0, description="side of the upsampled features, px; null: that of the images"
    )
    anyup: AnyUpSettings | None = Field(None, description="files of AnyUp, for that upsampler")
    low_pass: float = Field(
        0.4, ge=0, le=1, description="strength of the low-pass spatial normalisation of H_ref"
    )
    low_pass_size: float | None = Field(
        None,
        gt=0,
        description="deviation of the low pass's Gaussian blur, in tokens; null: use the mean over "
        "the image",
    )
    spatial_norm: float = Field(
        0.0,
        ge=0,
        le=1,
        description="H_ref is divided by each channel's deviation over the image to this power, "
        "after the low pass; 0: not divided, 1: all deviations become 1",
    )
    centre: bool = Field(False, description="first subtract the features' mean over the data")
    train: TrainSettings

    @model_validator(mode="after")
    def _check(self) -> RefinementSettings:
        if not self.reproduction and not self.gram:
            raise ValueError("`reproduction` and `gram` are both 0; set one of them above 0")
        if self.upsampler == "anyup" and self.anyup is None:
            raise ValueError("the upsampler `anyup` needs `anyup: {checkout: ..., weights: ...}`")
        return self

    def missing(self) -> str | None:
        """What is not on this machine; None if nothing is missing."""
        return self.anyup.missing() if self.upsampler == "anyup" and self.anyup else None

    def smoke(self) -> RefinementSettings:
        """A small version that needs no files."""
        small = {"depth": 1, "width": None, "heads": None, "upsampler": "none", "anyup": None}
        return self.model_copy(update=small)
