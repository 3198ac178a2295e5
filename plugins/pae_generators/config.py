"""Parameters of the built-in generators: what they share, and LightningDiT's. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Literal, Self

from pydantic import Field, model_validator

from pae_framework.config import GeneratorConfig, LatentShape
from pae_generators.presets import PRESETS, Architecture, Preset, gated_width

SMOKE_SIZE = {"depth": 2, "width": 64, "heads": 4}
"""Size of smoke versions."""
SINUSOIDS = 256
"""Sines and cosines of LightningDiT's time embedding, together."""
FOURIER = 256
"""Frequencies of RAE's time embedding; each gives a sine and a cosine."""


class TransformerConfig(GeneratorConfig):
    """Parameters of both generators; the defaults are those of the released weights."""

    without_effect = frozenset({"attention"})

    qk_norm: bool = Field(False, description="normalise queries and keys; steadier in long runs")
    mlp: Literal["swiglu", "gelu"] = Field(
        "swiglu", description="swiglu: gated, 2/3 of 4 widths; gelu: DiT's, 4 widths"
    )
    norm: Literal["rms", "layer"] = Field(
        "rms", description="rms: RMSNorm with a weight; layer: LayerNorm without (DiT)"
    )
    rope: bool = Field(True, description="rotary positions in attention")
    absolute_positions: bool = Field(True, description="fixed sine-cosine positions on the tokens")
    adaln_shift: bool = Field(
        True, description="false: the condition scales and gates blocks but does not shift them"
    )
    attention: Literal["sdpa", "xformers"] = Field(
        "sdpa", description="kernel: torch's own, or that of xformers (CUDA only)"
    )
    time: Literal["noise_first", "data_first"] = Field(
        "noise_first",
        description="what t = 0 means inside the network: noise, or data (weights of RAE); "
        "outside it is always noise",
    )
    channels: int | None = Field(None, gt=0, description="latent channels; null: as the latents")
    side: int | None = Field(None, gt=0, description="latent side; null: as the latents")
    classes: int | None = Field(
        None, ge=0, description="class count; null: as the images; 0: unconditional, without labels"
    )

    @property
    def conditional(self) -> bool:
        """Whether the velocity depends on the label."""
        return self.classes != 0

    def stated_classes(self) -> int | None:
        """The class count, if one is given."""
        return self.classes or None

    def class_count(self, num_classes: int) -> int:
        """Classes in the label table, for images of ``num_classes`` classes; 0: unconditional.

        Raises:
            ValueError: the config states another count.
        """
        if self.classes in (None, 0, num_classes):
            return num_classes if self.conditional else 0
        raise ValueError(
            f"`classes` is {self.classes}, but the images have {num_classes} classes; "
            f"set it to {num_classes}, null, or 0 for an unconditional network"
        )

    def missing(self) -> str | None:
        """A message if xformers is needed and not installed, else None."""
        if self.attention == "xformers" and find_spec("xformers") is None:
            return (
                "`attention: xformers` needs the package xformers: pip install "
                "'pae-framework[xformers]', or set attention=sdpa"
            )
        return None

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents of a shape other than the config states."""
        if self.channels is not None and self.channels != latent.channels:
            raise ValueError(
                f"`channels` is {self.channels}, but the latents are {latent}; "
                f"set it to {latent.channels} or null"
            )
        if self.side is not None and self.side != latent.side:
            raise ValueError(
                f"`side` is {self.side}, but the latents are {latent}; "
                f"set it to {latent.side} or null"
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
        """Numbers that blocks of these sizes store for the backward pass of one latent.

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
        """Updates for a smoke version besides the size: any images, on the CPU."""
        classes = None if self.conditional else 0
        return {"channels": None, "side": None, "classes": classes, "attention": "sdpa"}

    def _check_size(self, size: Architecture) -> None:
        """Refuse widths that heads or positions do not divide."""
        if size.width % size.heads:
            raise ValueError(f"{size.heads} heads do not divide the width {size.width}")
        head_width = size.width // size.heads
        if self.rope and head_width % 4:
            raise ValueError(
                f"width {size.width} / {size.heads} heads = {head_width} per head; "
                "rotary positions need a multiple of 4"
            )
        if self.absolute_positions and size.width % 4:
            raise ValueError(f"sine-cosine positions need a width divisible by 4, not {size.width}")


class LightningDiTConfig(TransformerConfig):
    """LightningDiT: a size by `preset`, or by `depth`, `width`, `heads` and `patch`.

    With `mlp: gelu`, `norm: layer` and `rope: false` it is a plain DiT.
    """

    preset: Preset | None = Field(None, description="named size, such as XL/1: size / patch")
    depth: int | None = Field(None, gt=0, description="blocks, where no preset is given")
    width: int | None = Field(None, gt=0, description="token width, where no preset is given")
    heads: int | None = Field(None, gt=0, description="attention heads, where no preset is given")
    patch: int | None = Field(
        None, gt=0, description="side of a token in latent cells, where no preset is given"
    )
    learn_sigma: bool = Field(
        False, description="twice the output channels, of which the second half is not used"
    )
    time_embedding: Literal["sinusoid", "fourier"] = Field(
        "sinusoid", description="fourier: random Gaussian frequencies, as in RAE's LightningDiT"
    )

    @property
    def architecture(self) -> Architecture:
        """The size, by preset or by numbers."""
        if self.preset is not None:
            return PRESETS[self.preset]
        return Architecture(**{key: value for key, value in self._numbers().items() if value})

    def _numbers(self) -> dict[str, int | None]:
        return {
            "depth": self.depth,
            "width": self.width,
            "heads": self.heads,
            "patch": self.patch,
        }

    @model_validator(mode="after")
    def _one_size(self) -> LightningDiTConfig:
        hint = "`preset`, or `depth`, `width`, `heads` and `patch`"
        check_one_size(self.preset, self._numbers(), hint)
        return self

    @model_validator(mode="after")
    def _size_fits(self) -> LightningDiTConfig:
        self._check_size(self.architecture)
        return self

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents of a shape other than the config states, or that patches do not tile."""
        super().check_latent(latent)
        check_tiles(self.architecture.patch, latent)

    def parameters(self, latent: LatentShape, num_classes: int) -> int:
        """Number of parameters, fixed positions included."""
        size = self.architecture
        return (
            self.input_parameters(size, latent, num_classes)
            + time_parameters(size.width, self.time_embedding)
            + size.depth * self.block_parameters(size)
            + self.final_parameters(size, latent.channels * (2 if self.learn_sigma else 1))
        )

    def activations(self, latent: LatentShape) -> int:
        """Numbers stored for the backward pass of one latent."""
        return self.block_activations([self.architecture], latent.side)

    def smoke(self) -> Self:
        """Two blocks of width 64 over the same patches, on any latents and classes."""
        small = {"preset": None, **SMOKE_SIZE, "patch": self.architecture.patch}
        return self.model_copy(update={**self._relaxed(), **small})


def check_one_size(preset: str | None, numbers: Mapping[str, int | None], hint: str) -> None:
    """A size is a preset or all of its numbers, not both and not half; ``hint`` says which.

    Raises:
        ValueError: it is given twice, in part or not at all.
    """
    given = [key for key, value in numbers.items() if value is not None]
    missing = [key for key, value in numbers.items() if value is None]
    if preset is not None and given:
        raise ValueError(f"`preset` {preset} already says {', '.join(given)}; give one way")
    if preset is None and not given:
        raise ValueError(f"no size: give {hint}")
    if preset is None and missing:
        raise ValueError(f"a size without `preset` also needs {', '.join(missing)}")


def check_tiles(patch: int, latent: LatentShape) -> None:
    """Refuse patches that do not tile the latents."""
    if latent.side % patch:
        raise ValueError(f"patch {patch} does not divide the side of the latents, {latent}")


def linear_parameters(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with bias."""
    return inputs * outputs + outputs


def time_parameters(width: int, embedding: Literal["sinusoid", "fourier"]) -> int:
    """Parameters of a time embedding, fixed frequencies included."""
    if embedding == "fourier":
        first = FOURIER + linear_parameters(2 * FOURIER, width)
    else:
        first = linear_parameters(SINUSOIDS, width)
    return first + linear_parameters(width, width)
