"""Settings of the tokenizer's reconstruction terms and of prior refinement. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from pae_framework.config import Settings
from pae_framework.hub import (
    HubFile,
    UrlFile,
    default_or_file,
    missing_weights,
    weights_files,
    weights_path,
)
from pae_framework.training.train_settings import TrainSettings


class PerceptualSettings(Settings):
    """A distance in the frozen encoder's own features: a stand-in for LPIPS, not LPIPS."""

    weight: float = Field(1.0, ge=0, description="factor of the term")
    layers: tuple[NonNegativeInt, ...] | None = Field(
        None, min_length=1, description="encoder blocks, from 0, that are compared; null: all"
    )


VGG16 = HubFile("timm/vgg16.tv_in1k")
"""VGG-16 with torchvision's weights: LPIPS's network."""

LPIPS_HEADS = UrlFile(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth"
)
"""LPIPS's channel weights, version 0.1 for VGG-16."""


class LpipsSettings(Settings):
    """LPIPS (Zhang et al. 2018) on VGG-16 features, with its learned channel weights."""

    weight: float = Field(0.0, ge=0, description="factor of the term; 0 skips it altogether")
    weights: Annotated[str, AfterValidator(default_or_file)] = Field(
        "default",
        description="`default`: VGG-16 from the hub with the channel weights of torch-fidelity's "
        "release; a local file that holds both, in torchvision's or LPIPS's names; `none`: random",
    )

    def files(self) -> Mapping[str, Path]:
        """The weights, where they are a local file."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """Say what is not on this machine; see :meth:`ComponentConfig.missing`."""
        if not self.weight:
            return None
        found = (missing_weights(self.weights, remote) for remote in (VGG16, LPIPS_HEADS))
        problem = next((one for one in found if one), None)
        return f"LPIPS: {problem}" if problem else None

    def fetch(self) -> str | None:
        """Bring the weights here; see :meth:`ComponentConfig.fetch`."""
        if self.missing() is None:
            return None
        for remote in (VGG16, LPIPS_HEADS):
            weights_path(self.weights, remote)
        return "weights of LPIPS"


class ReconstructionSettings(Settings):
    """Reconstruction terms of the tokenizer's loss."""

    l1: float = Field(1.0, ge=0, description="weight of the mean absolute pixel error")
    perceptual: PerceptualSettings = PerceptualSettings()
    lpips: LpipsSettings = LpipsSettings()


class AnyUpSettings(Settings):
    """Where AnyUp, a learned upsampler of features, lies on this machine; none is downloaded."""

    checkout: str = Field(description="folder of its repository, with its hubconf.py")
    weights: str = Field(description="file of its weights")

    def files(self) -> Mapping[str, Path]:
        """The weights."""
        return {"weights": Path(self.weights).expanduser()}

    def missing(self) -> str | None:
        """Say what is not on this machine; None: nothing is."""
        folder = Path(self.checkout).expanduser()
        if not (folder / "hubconf.py").is_file():
            return (
                f"no AnyUp checkout at {folder}: it has no hubconf.py; clone the repository "
                "wimmerth/anyup there, or use the upsampler `bilinear`"
            )
        file = Path(self.weights).expanduser()
        if file.is_file():
            return None
        return f"no AnyUp weights at {file}; save those of the repository's release there"


class RefinementSettings(Settings):
    """Prior refinement: compact targets learned from the frozen features (PAE, section 3)."""

    depth: int = Field(4, gt=0, description="blocks of the deprojector")
    width: int | None = Field(
        None, gt=0, multiple_of=4, description="its width; null: the encoder's"
    )
    heads: int | None = Field(
        None, gt=0, description="its heads, which divide its width; null: the encoder's"
    )
    reproduction: float = Field(1.0, ge=0, description="weight of |Q(Z) - H|^2, mean per entry")
    gram: float = Field(
        1.0, ge=0, description="weight of |Gram(Z) - Gram(H_ref)|^2, mean per entry"
    )
    upsampler: Literal["none", "bilinear", "anyup"] = Field(
        "none",
        description="what makes the features dense before H_ref is normalised and brought back to "
        "the token grid; anyup: a learned one, as the paper has it",
    )
    upsample_size: int | None = Field(
        None, gt=0, description="side of the dense features, px; null: that of the images"
    )
    anyup: AnyUpSettings | None = Field(None, description="where AnyUp lies, for that upsampler")
    low_pass: float = Field(
        0.4, ge=0, le=1, description="strength of the low-pass spatial normalisation of H_ref"
    )
    low_pass_size: float | None = Field(
        None,
        gt=0,
        description="deviation, in tokens, of the Gaussian blur that is the low pass; null: the "
        "mean over the image",
    )
    spatial_norm: float = Field(
        0.0,
        ge=0,
        le=1,
        description="power of each channel's deviation over the image H_ref is divided by after "
        "the low pass; 0: not divided, 1: all deviations 1",
    )
    centre: bool = Field(
        False, description="subtract the data mean of the features before anything else"
    )
    train: TrainSettings

    @model_validator(mode="after")
    def _something_to_learn(self) -> RefinementSettings:
        if not self.reproduction and not self.gram:
            raise ValueError("`reproduction` and `gram` are both 0; refinement needs one of them")
        return self

    @model_validator(mode="after")
    def _anyup_is_somewhere(self) -> RefinementSettings:
        if self.upsampler == "anyup" and self.anyup is None:
            raise ValueError("the upsampler `anyup` needs `anyup: {checkout: ..., weights: ...}`")
        return self

    def missing(self) -> str | None:
        """Say what is not on this machine; None: nothing is."""
        return self.anyup.missing() if self.upsampler == "anyup" and self.anyup else None

    def smoke(self) -> RefinementSettings:
        """The same refinement made small, with nothing it would need from elsewhere."""
        small = {"depth": 1, "width": None, "heads": None, "upsampler": "none", "anyup": None}
        return self.model_copy(update=small)
