"""Parameters of LightningDiT, and those that all built-in generators share. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from pae_framework.config import (
    HASHED_KERNELS,
    AttentionKernel,
    AttentionSetting,
    Depth,
    GeneratorConfig,
    LatentShape,
    Side,
    Width,
)
from pae_generators.presets import PRESETS, Architecture, Preset, gated_width

SMOKE_SIZE = {"depth": 2, "width": 64, "heads": 4}
"""Size of smoke versions."""
SIZE_FIELDS = ("depth", "width", "heads", "patch")
"""Fields of LightningDiT's size, in the order of :class:`Architecture`."""
SINUSOIDS = 256
"""Width of LightningDiT's time code: sines and cosines together."""
FOURIER = 256
"""Frequencies of RAE's time code; each gives a sine and a cosine."""


class TransformerConfig(GeneratorConfig):
    """Parameters of both generators; the defaults are those of the released weights."""

    without_effect = frozenset({"attention"})
    hashed_values = HASHED_KERNELS

    qk_norm: bool = Field(False, description="normalize queries and keys; stabilizes long runs")
    mlp: Literal["swiglu", "gelu"] = Field(
        "swiglu",
        description="swiglu: gated, hidden width 2/3 of 4 `width`; gelu: 4 `width` (DiT)",
    )
    norm: Literal["rms", "layer"] = Field(
        "rms", description="rms: RMSNorm with a weight; layer: LayerNorm without weights (DiT)"
    )
    rope: bool = Field(True, description="rotary positions in attention")
    absolute_positions: bool = Field(True, description="add fixed sine-cosine positions")
    adaln_shift: bool = Field(
        True, description="false: time and label scale and gate the blocks but do not shift them"
    )
    attention: AttentionSetting = "sdpa"
    time: Literal["noise_first", "data_first"] = Field(
        "noise_first",
        description="what t = 0 means to the network: noise, or data (weights of RAE); everywhere "
        "else it means noise",
    )
    channels: Width | None = Field(None, description="latent channels; null: any")
    side: Side | None = Field(None, description="latent side; null: any")
    classes: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="number of classes; null: that of the images; 0: unconditional",
    )

    @property
    def conditional(self) -> bool:
        """Whether the velocity depends on the label."""
        return self.classes != 0

    def stated_classes(self) -> int | None:
        """Number of classes set by ``classes``; None: any number, or unconditional."""
        return self.classes or None

    def class_count(self, num_classes: int) -> int:
        """Classes in the label table, for images of ``num_classes`` classes; 0: unconditional.

        Raises:
            ValueError: ``classes`` is another number.
        """
        if self.classes in (None, 0, num_classes):
            return num_classes if self.conditional else 0
        raise ValueError(
            f"`classes` is {self.classes}, but the images have {num_classes} classes; "
            f"set it to {num_classes}, null, or 0 for an unconditional network"
        )

    def attention_kernel(self) -> AttentionKernel:
        """That of ``attention``."""
        return self.attention

    def check_latent(self, latent: LatentShape) -> None:
        """Reject latents whose shape is not ``channels`` and ``side``."""
        for key in ("channels", "side"):
            expected, actual = getattr(self, key), getattr(latent, key)
            if expected not in (None, actual):
                raise ValueError(
                    f"`{key}` is {expected}, but the latents are {latent}; set it to {actual} or "
                    "null"
                )

    def input_parameters(self, size: Architecture, latent: LatentShape, num_classes: int) -> int:
        """Parameters of patch embedding, fixed positions, and label table with a null row."""
        positions = (latent.side // size.patch) ** 2 * size.width if self.absolute_positions else 0
        classes = num_classes if self.classes is None else self.classes
        labels = (classes + 1) * size.width
        return linear_parameters(latent.channels * size.patch**2, size.width) + positions + labels

    def block_parameters(self, size: Architecture) -> int:
        """Parameters of one block."""
        width, head = size.width, size.width // size.heads
        rms = self.norm == "rms"
        attention = linear_parameters(width, 3 * width) + linear_parameters(width, width)
        if self.qk_norm:
            attention += 2 * head * (1 if rms else 2)
        hidden = gated_width(width) if self.mlp == "swiglu" else 4 * width
        first = 2 * hidden if self.mlp == "swiglu" else hidden
        mlp = linear_parameters(width, first) + linear_parameters(hidden, width)
        modulation = linear_parameters(width, (6 if self.adaln_shift else 4) * width)
        return attention + mlp + modulation + (2 * width if rms else 0)

    def final_parameters(self, size: Architecture, channels: int) -> int:
        """Parameters of the final layer, for ``channels`` output channels."""
        norm = size.width if self.norm == "rms" else 0
        out = linear_parameters(size.width, size.patch**2 * channels)
        return norm + out + linear_parameters(size.width, 2 * size.width)

    def block_activations(self, sizes: Sequence[Architecture], side: int) -> int:
        """Numbers that blocks of these sizes store for the backward pass, per latent.

        Per token and channel: inputs, outputs and modulated outputs of both norms (6); q, k, v and
        the attention output (4); the gated values (2); the MLP (8 around GELU; with SwiGLU four
        times its hidden width: both halves, the gate's SiLU, the product); rotated q and k (2).
        """
        total = 0
        for size in sizes:
            mlp = 4 * gated_width(size.width) if self.mlp == "swiglu" else 8 * size.width
            channels = (14 if self.rope else 12) * size.width + mlp
            total += (side // size.patch) ** 2 * size.depth * channels
        return total

    def _relaxed(self) -> dict[str, object]:
        """Updates for a smoke version, apart from the size: any latents and classes, any device."""
        classes = None if self.conditional else 0
        return {"channels": None, "side": None, "classes": classes, "attention": "sdpa"}

    def _check_one_size(self, preset: str | None, fields: Sequence[str]) -> None:
        given = [key for key in fields if getattr(self, key) is not None]
        missing = [f"`{key}`" for key in fields if key not in given]
        if preset is not None and given:
            raise ValueError(f"`preset` {preset} already sets {', '.join(given)}; remove either")
        if preset is None and missing:
            start = "" if given else "`preset`, or "
            raise ValueError(f"the size is incomplete; set {start}{', '.join(missing)}")

    def _check_tiles(self, patch: int, latent: LatentShape) -> None:
        if latent.side % patch:
            raise ValueError(f"`patch` {patch} does not divide the side of the latents, {latent}")

    def _check_width(self, size: Architecture) -> None:
        if size.width % size.heads:
            raise ValueError(f"`heads` {size.heads} does not divide `width` {size.width}")
        head_width = size.width // size.heads
        if self.rope and head_width % 4:
            raise ValueError(
                f"`width` {size.width} / `heads` {size.heads} is {head_width}; rotary positions "
                "need a multiple of 4"
            )
        if self.absolute_positions and size.width % 4:
            raise ValueError(
                f"`width` {size.width} is no multiple of 4, as sine-cosine positions need"
            )


class LightningDiTConfig(TransformerConfig):
    """LightningDiT. Its size is a `preset`, or `depth`, `width`, `heads` and `patch`.

    With `mlp: gelu`, `norm: layer` and `rope: false` it is a plain DiT.
    """

    preset: Preset | None = Field(None, description="named size, such as XL/1: size / patch")
    depth: Depth | None = Field(None, description="blocks, without a preset")
    width: Width | None = Field(None, description="token width, without a preset")
    heads: Width | None = Field(None, description="attention heads, without a preset")
    patch: Side | None = Field(
        None, description="side of a patch in latent cells, without a preset"
    )
    learn_sigma: bool = Field(
        False, description="twice as many output channels; the second half is not used"
    )
    time_embedding: Literal["sinusoid", "fourier"] = Field(
        "sinusoid", description="fourier: random Gaussian frequencies, as in RAE's LightningDiT"
    )

    @property
    def architecture(self) -> Architecture:
        """The size of the preset, or of the fields."""
        if self.preset is not None:
            return PRESETS[self.preset]
        return Architecture(*(getattr(self, key) for key in SIZE_FIELDS))

    @model_validator(mode="after")
    def _check_architecture(self) -> LightningDiTConfig:
        self._check_one_size(self.preset, SIZE_FIELDS)
        self._check_width(self.architecture)
        return self

    def check_latent(self, latent: LatentShape) -> None:
        """Reject latents whose shape is not the configured one or that patches do not tile."""
        super().check_latent(latent)
        self._check_tiles(self.architecture.patch, latent)

    def parameters(self, latent: LatentShape, num_classes: int) -> int:
        """Number of parameters, including fixed positions."""
        size = self.architecture
        return (
            self.input_parameters(size, latent, num_classes)
            + time_parameters(size.width, self.time_embedding)
            + size.depth * self.block_parameters(size)
            + self.final_parameters(size, latent.channels * (2 if self.learn_sigma else 1))
        )

    def activations(self, latent: LatentShape) -> int:
        """Numbers stored for the backward pass, per latent."""
        return self.block_activations([self.architecture], latent.side)

    def smoke(self) -> Self:
        """Two blocks of width 64 with the same patches, for any latents and classes."""
        small = {"preset": None, **SMOKE_SIZE, "patch": self.architecture.patch}
        return self.model_copy(update={**self._relaxed(), **small})


def linear_parameters(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with bias."""
    return inputs * outputs + outputs


def time_parameters(width: int, embedding: Literal["sinusoid", "fourier"]) -> int:
    """Parameters of a time embedding, including fixed frequencies."""
    if embedding == "fourier":
        first = FOURIER + linear_parameters(2 * FOURIER, width)
    else:
        first = linear_parameters(SINUSOIDS, width)
    return first + linear_parameters(width, width)
