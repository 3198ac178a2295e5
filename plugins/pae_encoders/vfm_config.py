"""What a recipe may say of the pretrained encoders. No torch, no timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from pae_encoders.families import DINOV2, DINOV3, MAE, SIGLIP2, Family, Form, Variant
from pae_encoders.remote import remote_file
from pae_framework.config import EncoderConfig, Settings
from pae_framework.hub import (
    RemoteFile,
    is_file_name,
    missing_weights,
    weights_files,
    weights_path,
)


class NetworkSize(Settings):
    """Another size for a network of the model's form: for tests, and networks of one's own."""

    width: int = Field(gt=0, multiple_of=4, description="token width D")
    depth: int = Field(gt=0, description="transformer blocks")
    heads: int = Field(gt=0, description="attention heads; divides the width")
    mlp_ratio: float = Field(4.0, gt=0, description="MLP width over token width")
    grid: int | None = Field(
        None, gt=0, description="tokens per side the positions are learned for; null: the model's"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `width` {self.width}")
        return self

    def of(self, form: Form) -> Form:
        """The form at this size."""
        grid = (self.grid or form.grid) if form.grid else 0
        mlp = round(self.width * self.mlp_ratio)
        return replace(
            form, width=self.width, depth=self.depth, heads=self.heads, mlp=mlp, grid=grid
        )


class FoundationConfig(EncoderConfig):
    """A pretrained vision transformer, frozen: a family's form at one of its sizes."""

    family: ClassVar[Family]

    model: str
    weights: str = Field(
        "default",
        description="`default`: the model's own, from the hub; another tag of it; a local "
        ".safetensors or .pt file; `none`: random",
    )
    input_size: int | None = Field(
        None,
        gt=0,
        description="side in px images are resized to for the encoder; null: the image size, with "
        "patches of 14 px 14/16 of it, so that 256 px give 16 x 16 tokens",
    )
    size: NetworkSize | None = Field(
        None,
        description="a network of the model's form at another size; `weights` must be `none` or a "
        "file; null: the model's",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        variant, tag = self.family.find(self.model)
        is_file = is_file_name(self.weights)
        if self.size is not None and self.weights != "none" and not is_file:
            raise ValueError("with `size`, `weights` must be `none` or a file")
        is_tag = not is_file and self.weights not in ("default", "none")
        if is_tag and self.weights not in variant.tags:
            raise ValueError(
                f"{self.model!r} has no weights {self.weights!r}; `weights` is `default`, `none`, "
                f"a file, or one of its tags: {', '.join(variant.tags)}"
            )
        if is_tag and tag not in (None, self.weights):
            raise ValueError(f"`model` names the weights {tag!r}, `weights` {self.weights!r}")
        if not self.form.grid and self.form.width // self.form.heads % 4:
            raise ValueError("rotary positions need a width per head that is divisible by 4")
        return self

    @property
    def variant(self) -> Variant:
        """What the model name stands for."""
        return self.family.find(self.model)[0]

    @property
    def tag(self) -> str:
        """The tag of the weights, or, without any, the one whose image statistics are used."""
        variant, tag = self.family.find(self.model)
        return self.weights if self.weights in variant.tags else tag or variant.tags[0]

    @property
    def form(self) -> Form:
        """Size of the network."""
        form = self.variant.form
        return form if self.size is None else self.size.of(form)

    @property
    def remote(self) -> RemoteFile:
        """Where the weights can be had."""
        return remote_file(self.family, self.variant, self.tag)

    def files(self) -> Mapping[str, Path]:
        """The weights, where they are a local file."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """The weights, where they are not on this machine."""
        return missing_weights(self.weights, self.remote)

    def fetch(self) -> str | None:
        """Download the weights, unless they are here."""
        if self.missing() is None:
            return None
        weights_path(self.weights, self.remote)
        return self.remote.where

    def smoke(self) -> Self:
        """Two narrow blocks of the same form, untrained, with inputs of the usual size."""
        tiny = NetworkSize(width=32, depth=2, heads=2)
        return self.model_copy(update={"size": tiny, "weights": "none", "input_size": None})

    def input_side(self, image_size: int) -> int:
        """Side in px of what the network is given for images of ``image_size`` px.

        Raises:
            ValueError: the patch does not divide it.
        """
        patch = self.form.patch
        unit = 16 if patch == 14 else patch
        if self.input_size is None and image_size % unit:
            why = " (shown at 14/16 of their size)" if patch == 14 else ""
            raise ValueError(
                f"images of {image_size} px do not divide into patches of {patch} px{why}; "
                f"{_nearest(image_size, unit)} px would, or give `input_size`"
            )
        if self.input_size is None:
            return image_size * patch // unit
        if self.input_size % patch:
            raise ValueError(
                f"`input_size` {self.input_size} px does not divide into patches of {patch} px; "
                f"{_nearest(self.input_size, patch)} px would"
            )
        return self.input_size

    def token_grid(self, image_size: int) -> int:
        """Patches per side of the network's input."""
        return self.input_side(image_size) // self.form.patch

    def token_width(self) -> int:
        """The width."""
        return self.form.width

    def token_heads(self) -> int:
        """The heads."""
        return self.form.heads

    def parameters(self, image_size: int) -> int:
        """The same for images of every size."""
        return self.form.parameters()


def _model(family: Family, default: str, description: str) -> Any:
    """The field that names the model; editors offer the names."""
    names = list(family.model_names)
    return Field(default, description=f"{description}; `.tag` may follow", examples=names)


class DINOv2Config(FoundationConfig):
    """DINOv2 (Oquab et al. 2023), with four register tokens (`_reg4`) or without."""

    family: ClassVar[Family] = DINOV2
    model: str = _model(DINOV2, "vit_large_patch14_reg4_dinov2", "timm's name of a DINOv2 model")


class DINOv3Config(FoundationConfig):
    """DINOv3 (Simeoni et al. 2025): rotary positions, four register tokens."""

    family: ClassVar[Family] = DINOV3
    model: str = _model(DINOV3, "vit_large_patch16_dinov3", "timm's name of a DINOv3 model")


class MAEConfig(FoundationConfig):
    """The encoder of a masked autoencoder (He et al. 2021), shown the whole image."""

    family: ClassVar[Family] = MAE
    model: str = _model(
        MAE, "vit_large_patch16_224", "timm's name of a ViT with MAE weights (`.mae`)"
    )


class SigLIP2Config(FoundationConfig):
    """The image tower of SigLIP2 (Tschannen et al. 2025), without its text tower."""

    family: ClassVar[Family] = SIGLIP2
    model: str = _model(
        SIGLIP2,
        "ViT-SO400M-16-SigLIP2-256",
        "open-clip's name of a SigLIP2 model, or timm's of its image tower",
    )


def _nearest(size: int, unit: int) -> str:
    lower = size - size % unit
    return f"{lower} or {lower + unit}" if lower else str(unit)
