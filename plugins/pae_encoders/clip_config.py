"""Config of the encoder ``clip``. No torch, no open-clip."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field, field_validator

from pae_encoders.clip_models import (
    CLIP,
    STATISTICS,
    ClipForm,
    ClipVariant,
    ClipWeights,
    Statistics,
)
from pae_encoders.families import Family
from pae_encoders.vfm_config import EitherFile, FoundationConfig
from pae_framework.hub import HubFile, RemoteFile, is_file_name

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names that repositories of open-clip's weights use."""


class CLIPConfig(FoundationConfig):
    """The image tower of CLIP (Radford et al. 2021) or CoCa, without its text tower."""

    family: ClassVar[Family] = CLIP
    model: str = Field(
        "ViT-L-14",
        description="open-clip's name of a model with a plain ViT; `.tag` may follow. For a local "
        "file, the tag tells how it was trained: `ViT-L-14.openai` for OpenAI's (QuickGELU)",
        examples=list(CLIP.model_names),
    )

    @field_validator("model")
    @classmethod
    def _has_tokens(cls, model: str) -> str:
        if model.startswith("RN"):
            raise ValueError(
                f"{model!r} is a ResNet, whose attention pooling leaves no tokens; use a ViT: "
                f"{', '.join(CLIP.model_names)}"
            )
        return model

    @property
    def variant(self) -> ClipVariant:
        """The model that the recipe names."""
        variant = super().variant
        assert isinstance(variant, ClipVariant)
        return variant

    def poolings(self) -> tuple[str, ...]:
        """The class token, the mean token, and what CLIP compares with text."""
        return ("cls", "mean", "head")

    @property
    def published(self) -> ClipWeights | None:
        """The weights of the tag; None if the model has no tags."""
        return None if self.tag is None else self.variant.of(self.tag)

    @property
    def form(self) -> ClipForm:
        """Size of the network, with the activation that the weights were trained with.

        That of a file is the one of the tag in ``model``, or else of the model itself.
        """
        form = super().form
        assert isinstance(form, ClipForm)
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
