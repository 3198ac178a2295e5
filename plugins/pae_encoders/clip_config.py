"""Config of the encoder ``clip``. No torch, no open-clip."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from pae_encoders.clip_models import (
    CLIP,
    STATISTICS,
    ClipForm,
    ClipVariant,
    ClipWeights,
    ResNetForm,
    Statistics,
)
from pae_encoders.clip_timm_models import TimmForm
from pae_encoders.families import Family, Form
from pae_encoders.vfm_config import FoundationConfig
from pae_framework.hub import EitherFile, HubFile, RemoteFile, is_file_name

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names that repositories of open-clip's weights use."""


class CLIPConfig(FoundationConfig):
    """The image tower of CLIP (Radford et al. 2021) or of a relative, without its text tower."""

    family: ClassVar[Family] = CLIP
    model: str = Field(
        "ViT-L-14",
        description="open-clip's name of a model; `.tag` may follow. "
        "For a local file, the tag tells how it was trained: `ViT-L-14.openai` for OpenAI's "
        "(QuickGELU)",
        examples=list(CLIP.model_names),
    )

    @model_validator(mode="after")
    def _is_resizable(self) -> Self:
        form = self.variant.form
        if self._is_plain_vit:
            if (
                isinstance(form, TimmForm)
                and form.rotary
                and self.form.width // self.form.heads % 4
            ):
                raise ValueError("rotary positions need a width per head divisible by 4")
            return self
        what = "is a ResNet" if isinstance(form, ResNetForm) else "is not"
        for setting in ("size", "attention"):
            if getattr(self, setting) != type(self).model_fields[setting].default:
                raise ValueError(f"`{setting}` needs a plain ViT, but {self.model!r} {what}")
        return self

    @property
    def variant(self) -> ClipVariant:
        """The model that the recipe names."""
        variant = super().variant
        assert isinstance(variant, ClipVariant)
        return variant

    def poolings(self) -> tuple[str, ...]:
        """A ViT's class token or the mean of the last map, the mean token, CLIP's embedding."""
        return ("cls", "mean", "head") if self.form.class_token else ("own", "mean", "head")

    @property
    def _is_plain_vit(self) -> bool:
        form = self.variant.form
        return isinstance(form, ClipForm) or (isinstance(form, TimmForm) and form.resizable)

    def input_side(self, image_size: int) -> int:
        """Side in px of the network's input for images of ``image_size`` px.

        Raises:
            ValueError: the network does not take it.
        """
        form = self.form
        own = form.grid * form.patch
        fixed = isinstance(form, TimmForm) and form.kind == "fixed"
        if fixed and (self.input_size or image_size) != own:
            raise ValueError(
                f"{self.model!r} takes inputs of {own} px only, because its relative positions are "
                f"for {form.grid} x {form.grid} tokens; set input_size: {own}"
            )
        return super().input_side(image_size)

    def parameters(self, image_size: int) -> int | None:
        """Number of parameters; None for a network of timm's at another size."""
        if self.size is not None and isinstance(self.form, TimmForm):
            return None
        return super().parameters(image_size)

    def activations(self, image_size: int) -> int | None:
        """By stages for convolutions."""
        form, side = self.form, self.input_side(image_size)
        if isinstance(form, ResNetForm):
            return form.activations(side)
        if isinstance(form, TimmForm) and form.kept:
            return form.kept * side**2
        return super().activations(image_size)

    def smoke(self) -> Self:
        """Two narrow blocks of a ViT, or else a small model with the same patch and poolings."""
        if self._is_plain_vit:
            return super().smoke()
        if self.form.class_token:
            return self.model_copy(update={"model": "ViT-B-16"}).smoke()
        small = {16: "ViTamin-S", 32: "RN50", 64: "MobileCLIP2-S3"}[self.form.patch]
        changes = {"model": small, "weights": "none", "input_size": None}
        return self.model_copy(update=changes)

    @property
    def published(self) -> ClipWeights | None:
        """The weights of the tag; None if the model has no tags."""
        return None if self.tag is None else self.variant.of(self.tag)

    @property
    def form(self) -> Form:
        """Size of the network, with the activation that the weights were trained with.

        That of a file is the one of the tag in ``model``, or else of the model itself.
        """
        form = super().form
        if not isinstance(form, ClipForm):
            return form
        names_tag = self.family.find(self.model)[1] is not None
        uses_tag = names_tag if is_file_name(self.weights) else self.weights != "none"
        quick = uses_tag and self.published is not None and self.published.quick_gelu
        return replace(form, quick_gelu=form.quick_gelu or quick)

    @property
    def statistics(self) -> Statistics:
        """Channel means and deviations of the images that the weights were trained with."""
        return STATISTICS["openai" if self.published is None else self.published.statistics]

    @property
    def remote(self) -> RemoteFile | None:
        """Where the weights of the tag can be downloaded: safetensors, or else PyTorch's file."""
        if self.published is None:
            return None
        repository = self.published.repository
        names = _FILES if self.published.file is None else (self.published.file,)
        return EitherFile(tuple(HubFile(repository, name) for name in names))
