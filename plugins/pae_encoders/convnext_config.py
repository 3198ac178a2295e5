"""Config of the encoder ``convnextv2``, and the models by timm's names (1.0.31). No torch, no timm.

A test compares the table with the networks and the tags of timm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import Field

from pae_encoders.families import Family, Form, Variant
from pae_encoders.vfm_config import PretrainedConfig

STEM = 4
"""Side in px of the patches of the first stage."""


@dataclass(frozen=True)
class ConvNeXtForm(Form):
    """Size of a ConvNeXt V2; ``width`` is that of the last stage, ``blocks`` counts by stage."""

    blocks: tuple[int, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, doubled from stage to stage."""
        return tuple(self.width >> stage for stage in reversed(range(self.depth)))

    def parameters(self) -> int:
        """Number of parameters, without classifier."""
        first = self.widths[0]
        total = (3 * STEM**2 + 3) * first + 2 * self.width
        for blocks, width in zip(self.blocks, self.widths, strict=True):
            total += blocks * (8 * width**2 + 65 * width)
        for before, after in zip(self.widths[:-1], self.widths[1:], strict=True):
            total += 2 * before + 4 * before * after + after
        return total


def _form(width: int, *blocks: int) -> ConvNeXtForm:
    stages = len(blocks)
    patch = STEM << (stages - 1)
    return ConvNeXtForm(
        patch, width, stages, width // 32, 4 * width, 0, class_token=False, blocks=blocks
    )


_PRETRAINED = ("fcmae", "fcmae_ft_in1k")
_FINETUNED = ("fcmae_ft_in22k_in1k", "fcmae_ft_in22k_in1k_384")
_HUGE = ("fcmae_ft_in22k_in1k_384", "fcmae_ft_in22k_in1k_512")

_VARIANTS = (
    Variant("convnextv2_atto", _form(320, 2, 2, 6, 2), _PRETRAINED),
    Variant("convnextv2_femto", _form(384, 2, 2, 6, 2), _PRETRAINED),
    Variant("convnextv2_pico", _form(512, 2, 2, 6, 2), _PRETRAINED),
    Variant("convnextv2_nano", _form(640, 2, 2, 8, 2), (*_PRETRAINED, *_FINETUNED)),
    Variant("convnextv2_tiny", _form(768, 3, 3, 9, 3), (*_PRETRAINED, *_FINETUNED)),
    Variant("convnextv2_small", _form(768, 3, 3, 27, 3), ()),
    Variant("convnextv2_base", _form(1024, 3, 3, 27, 3), (*_PRETRAINED, *_FINETUNED)),
    Variant("convnextv2_large", _form(1536, 3, 3, 27, 3), (*_PRETRAINED, *_FINETUNED)),
    Variant("convnextv2_huge", _form(2816, 3, 3, 27, 3), (*_PRETRAINED, *_HUGE)),
)
CONVNEXTV2 = Family("convnextv2", {variant.name: variant for variant in _VARIANTS}, aliases={})


class ConvNeXtV2Config(PretrainedConfig):
    """ConvNeXt V2 (Woo et al. 2023): convolutions; tokens are the last feature map, S / 32 wide."""

    family: ClassVar[Family] = CONVNEXTV2
    model: str = Field(
        "convnextv2_base",
        description="timm's name of a ConvNeXt V2; `.tag` may follow",
        examples=list(CONVNEXTV2.model_names),
    )

    @property
    def form(self) -> ConvNeXtForm:
        """Size of the network."""
        form = self.variant.form
        assert isinstance(form, ConvNeXtForm)
        return form

    def token_heads(self) -> int:
        """One per 32 channels."""
        return self.form.heads

    def poolings(self) -> tuple[str, ...]:
        """The mean of the last feature map, the mean token, and what timm's classifier takes."""
        return ("own", "mean", "head")

    def feature_maps(self) -> int:
        """One for each stage."""
        return self.form.depth

    def activations(self, image_size: int) -> int:
        """20 numbers for each channel and place of each block: 3 of them four times as wide."""
        side, form = self.input_side(image_size), self.form
        places = [(side // (STEM << stage)) ** 2 for stage in range(form.depth)]
        stages = zip(form.blocks, form.widths, places, strict=True)
        return sum(20 * blocks * width * count for blocks, width, count in stages)

    def smoke(self) -> Self:
        """The smallest model, untrained, with the default input size."""
        changes = {"model": "convnextv2_atto", "weights": "none", "input_size": None}
        return self.model_copy(update=changes)
