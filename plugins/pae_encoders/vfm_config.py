"""Configs of the pretrained encoders, and where their weights are. No torch, no timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from pae_encoders.config import nearest_multiples
from pae_encoders.families import DINOV2, DINOV3, MAE, SIGLIP2, Family, Form, Variant
from pae_framework.config import (
    HASHED_KERNELS,
    AttentionKernel,
    AttentionSetting,
    Depth,
    EncoderConfig,
    MlpRatio,
    PathText,
    Settings,
    Side,
    Width,
)
from pae_framework.hub import (
    EitherFile,
    HubFile,
    RemoteFile,
    is_file_name,
    missing_weights,
    weights_files,
    weights_path,
)


class NetworkSize(Settings):
    """Another size for the model's architecture, for tests and for your own networks."""

    width: Width = Field(multiple_of=4, description="token width D")
    depth: Depth = Field(description="transformer blocks")
    heads: Width = Field(description="attention heads; divides the width")
    mlp_ratio: MlpRatio = Field(4.0, description="MLP width over token width")
    grid: Side | None = Field(
        None, description="tokens per side the positions are learned for; null: the model's"
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


class PretrainedConfig(EncoderConfig):
    """A pretrained, frozen network of a family."""

    family: ClassVar[Family]

    model: str
    weights: PathText = Field(
        "default",
        description="`default`: the model's own, from the hub; another of its tags; a local "
        ".safetensors or .pt file; `none`: random weights",
    )
    input_size: Side | None = Field(
        None,
        description="images are resized to this side in px for the encoder; null: the image size, "
        "or 14/16 of it for patches of 14 px, so that 256 px give 16 x 16 tokens",
    )

    @classmethod
    def known_models(cls) -> Mapping[str, Sequence[str]]:
        """The models of the family, with their tags."""
        return {variant.name: variant.tags for variant in cls.family.variants.values()}

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        variant, tag = self.family.find(self.model)
        if is_file_name(self.weights) or self.weights == "none":
            return self
        if not variant.tags:
            raise ValueError(
                f"{self.model!r} has no published weights; set `weights` to none or a file"
            )
        is_tag = self.weights != "default"
        if is_tag and self.weights not in variant.tags:
            raise ValueError(
                f"{self.model!r} has no weights {self.weights!r}; set `weights` to default, none, "
                f"a file, or one of its tags: {', '.join(variant.tags)}"
            )
        if is_tag and tag not in (None, self.weights):
            raise ValueError(f"`model` has the tag {tag!r}, but `weights` is {self.weights!r}")
        return self

    @property
    def variant(self) -> Variant:
        """The model that the recipe names."""
        return self.family.find(self.model)[0]

    @property
    def tag(self) -> str | None:
        """The tag of the weights; without weights, the one whose image statistics are used.

        None if no weights of the model are published.
        """
        variant, tag = self.family.find(self.model)
        if self.weights in variant.tags:
            return self.weights
        return tag or next(iter(variant.tags), None)

    @property
    def form(self) -> Form:
        """Size of the network."""
        return self.variant.form

    @property
    def remote(self) -> RemoteFile | None:
        """Where the weights can be downloaded: timm's file, or open-clip's if only that is cached.

        timm's is smaller: open-clip's also contains the text tower. None if none are published.
        """
        if self.tag is None:
            return None
        own = HubFile(f"timm/{self.variant.hub_name(self.tag)}")
        names = [
            open_clip
            for open_clip, timm in self.family.aliases.items()
            if timm == self.variant.name
        ]
        if not names:
            return own
        return EitherFile(
            (own, *(HubFile(f"timm/{name}", "open_clip_model.safetensors") for name in names))
        )

    def files(self) -> Mapping[str, Path]:
        """The weights, if they are a local file."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """What is missing if the weights are not on this machine."""
        return missing_weights(self.weights, self.remote)

    def fetch(self) -> str | None:
        """Download the weights if they are missing."""
        if self.missing() is None:
            return None
        remote = self.remote
        weights_path(self.weights, remote)
        assert remote is not None
        return remote.where

    def input_side(self, image_size: int) -> int:
        """Side in px of the network's input for images of ``image_size`` px.

        Raises:
            ValueError: it is not a multiple of the patch.
        """
        patch = self.form.patch
        unit = 16 if patch == 14 else patch
        if self.input_size is None and image_size % unit:
            why = " (images are resized to 14/16 of their size)" if patch == 14 else ""
            raise ValueError(
                f"images of {image_size} px are not divisible into patches of {patch} px{why}; "
                f"use {nearest_multiples(image_size, unit)} px, or set input_size"
            )
        if self.input_size is None:
            return image_size * patch // unit
        if self.input_size % patch:
            raise ValueError(
                f"input_size {self.input_size} px is not divisible into patches of {patch} px; "
                f"use {nearest_multiples(self.input_size, patch)} px"
            )
        return self.input_size

    def token_grid(self, image_size: int) -> int:
        """Patches per side of the network's input."""
        return self.input_side(image_size) // self.form.patch

    def token_width(self) -> int:
        """The width."""
        return self.form.width

    def distance_label(self, label: str, name: str) -> str:
        """What a Frechet distance in its features is called: ``gFD (dinov2 vit_base...)``."""
        random = "random " if self.untrained else ""
        return f"{label} ({random}{name} {self.model})"

    def parameters(self, image_size: int) -> int | None:
        """Number of parameters; does not depend on the image size."""
        return self.form.parameters()


class FoundationConfig(PretrainedConfig):
    """A pretrained, frozen vision transformer."""

    without_effect = frozenset({"attention"})
    hashed_values = HASHED_KERNELS

    size: NetworkSize | None = Field(
        None,
        description="another size for the model's architecture; needs `weights: none` or a file; "
        "null: the model's own size",
    )
    attention: AttentionSetting = "sdpa"

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.size is not None and self.weights != "none" and not is_file_name(self.weights):
            raise ValueError("`size` needs weights of that size; set `weights` to none or a file")
        if not self.form.grid and self.form.width // self.form.heads % 4:
            raise ValueError("rotary positions need a width per head divisible by 4")
        return self

    @property
    def form(self) -> Form:
        """Size of the network."""
        form = super().form
        return form if self.size is None else self.size.of(form)

    def attention_kernel(self) -> AttentionKernel:
        """That of ``attention``."""
        return self.attention

    def smoke(self) -> Self:
        """Two narrow blocks of the same architecture, untrained, with the default input size."""
        changes = {"weights": "none", "input_size": None, "attention": "sdpa"}
        tiny = NetworkSize(width=32, depth=2, heads=2)
        return self.model_copy(update={"size": tiny, **changes})

    def token_heads(self) -> int:
        """The heads."""
        return self.form.heads

    def poolings(self) -> tuple[str, ...]:
        """The class token, if there is one, and the mean token."""
        return ("cls", "mean") if self.form.class_token else ("mean",)

    def feature_maps(self) -> int:
        """One for each block."""
        return self.form.depth


def model_name(family: Family, default: str, description: str) -> Any:
    """The field that names the model; editors offer the names."""
    names = list(family.model_names)
    return Field(default, description=f"{description}; `.tag` may follow", examples=names)


class DINOv2Config(FoundationConfig):
    """DINOv2 (Oquab et al. 2023), with four register tokens (`_reg4`) or without."""

    family: ClassVar[Family] = DINOV2
    model: str = model_name(
        DINOV2, "vit_large_patch14_reg4_dinov2", "timm's name of a DINOv2 model"
    )


class DINOv3Config(FoundationConfig):
    """DINOv3 (Simeoni et al. 2025): rotary positions, four register tokens."""

    family: ClassVar[Family] = DINOV3
    model: str = model_name(DINOV3, "vit_large_patch16_dinov3", "timm's name of a DINOv3 model")


class MAEConfig(FoundationConfig):
    """The encoder of a masked autoencoder (He et al. 2021); it sees the whole image."""

    family: ClassVar[Family] = MAE
    model: str = model_name(
        MAE, "vit_large_patch16_224", "timm's name of a ViT with MAE weights (`.mae`)"
    )


class SigLIP2Config(FoundationConfig):
    """The image tower of SigLIP2 (Tschannen et al. 2025), without its text tower."""

    family: ClassVar[Family] = SIGLIP2
    model: str = model_name(
        SIGLIP2,
        "ViT-SO400M-16-SigLIP2-256",
        "open-clip's name of a SigLIP2 model, or timm's of its image tower",
    )
