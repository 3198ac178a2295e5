"""Config of the encoder ``clip``. No torch, no open-clip."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from pae_encoders.clip_models import (
    CLIP,
    STATISTICS,
    TIMM_TOWERS,
    ClipForm,
    ClipVariant,
    ClipWeights,
    ResNetForm,
    Statistics,
)
from pae_encoders.families import Family, Form
from pae_encoders.vfm_config import EitherFile, FoundationConfig
from pae_framework.hub import HubFile, RemoteFile, is_file_name

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names that repositories of open-clip's weights use."""


class CLIPConfig(FoundationConfig):
    """The image tower of CLIP (Radford et al. 2021) or CoCa, without its text tower."""

    family: ClassVar[Family] = CLIP
    model: str = Field(
        "ViT-L-14",
        description="open-clip's name of a model with a plain ViT or a ResNet; `.tag` may follow. "
        "For a local file, the tag tells how it was trained: `ViT-L-14.openai` for OpenAI's "
        "(QuickGELU)",
        examples=list(CLIP.model_names),
    )

    @field_validator("model")
    @classmethod
    def _is_own_tower(cls, model: str) -> str:
        if model.partition(".")[0] in TIMM_TOWERS:
            raise ValueError(
                f"open-clip builds {model!r} around a network of timm's, which `clip` does not "
                f"read; use a plain ViT or a ResNet: {', '.join(CLIP.model_names)}"
            )
        return model

    @model_validator(mode="after")
    def _is_resizable(self) -> Self:
        if isinstance(self.variant.form, ClipForm):
            return self
        for setting in ("size", "attention"):
            if getattr(self, setting) != type(self).model_fields[setting].default:
                raise ValueError(f"`{setting}` needs a ViT, but {self.model!r} is a ResNet")
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

    def activations(self, image_size: int) -> int | None:
        """By stages for a ResNet."""
        if isinstance(self.form, ResNetForm):
            return self.form.activations(self.input_side(image_size))
        return super().activations(image_size)

    def smoke(self) -> Self:
        """Two narrow blocks of a ViT; the smallest ResNet."""
        if isinstance(self.form, ClipForm):
            return super().smoke()
        changes = {"model": "RN50", "weights": "none", "input_size": None}
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
        return EitherFile(tuple(HubFile(repository, name) for name in _FILES))
