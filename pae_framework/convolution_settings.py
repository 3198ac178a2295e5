"""Settings and sizes of latent diffusion's convolutional networks. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from annotated_types import Ge, Gt, Le
from pydantic import Field, model_validator

from pae_framework.config import Depth, Settings, Width

GROUPS = 32
"""Groups of every group norm."""


@dataclass(frozen=True)
class Level:
    """Residual blocks at one resolution.

    Args:
        halvings: how often the side of the image was halved.
        inputs: input channels of each block.
        width: output channels of each block.
        attends: whether an attention follows each block.
        resizes: whether the next level has another resolution.
    """

    halvings: int
    inputs: tuple[int, ...]
    width: int
    attends: bool
    resizes: bool

    def parameters(self) -> int:
        """Number of parameters, including those of the change of resolution."""
        blocks = sum(residual_parameters(width, self.width) for width in self.inputs)
        attention = len(self.inputs) * attention_parameters(self.width) if self.attends else 0
        return blocks + attention + (convolution(self.width, self.width) if self.resizes else 0)

    def activations(self, side: int, upsamples: bool) -> int:
        """Numbers kept for the backward pass, per image.

        Args:
            side: of the images at this level, px.
            upsamples: whether the change of resolution doubles the side; else it halves it.
        """
        blocks = sum(residual_activations(width, self.width) for width in self.inputs)
        attention = len(self.inputs) * attention_activations(self.width) if self.attends else 0
        resized = (4 if upsamples else 1) * self.width if self.resizes else 0
        return side**2 * (blocks + attention + resized)


class PyramidSettings(Settings):
    """Residual blocks at several resolutions, as in latent diffusion's autoencoders."""

    channels: Width = Field(
        128, multiple_of=GROUPS, description="channels at the finest level, a multiple of 32"
    )
    multipliers: tuple[Annotated[int, Gt(0), Le(64)], ...] = Field(
        (1, 1, 2, 2, 4),
        min_length=1,
        max_length=8,
        description="channels of each level, as multiples of `channels`, from the finest level; "
        "each further level halves the side",
    )
    blocks: Depth = Field(
        2, description="residual blocks per level of the encoder; the decoder has one more"
    )
    attention: Annotated[int, Ge(0)] = Field(
        1, description="number of coarsest levels with an attention after each block"
    )

    @model_validator(mode="after")
    def _has_so_many_levels(self) -> Self:
        if self.attention > len(self.multipliers):
            raise ValueError(
                f"`attention` {self.attention} is more than the {len(self.multipliers)} levels of "
                "`multipliers`"
            )
        return self

    @property
    def factor(self) -> int:
        """Side of the image in px over side of the latents."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def middle(self) -> int:
        """Channels of the blocks in the middle."""
        return self.channels * self.multipliers[-1]

    def encoder_levels(self) -> list[Level]:
        """From the finest to the coarsest."""
        return self._levels(range(len(self.multipliers)), self.channels, self.blocks)

    def decoder_levels(self) -> list[Level]:
        """From the coarsest to the finest."""
        coarsest_first = range(len(self.multipliers) - 1, -1, -1)
        return self._levels(coarsest_first, self.middle, self.blocks + 1)

    def _levels(self, order: Sequence[int], entering: int, blocks: int) -> list[Level]:
        levels, count = list[Level](), len(self.multipliers)
        for index in order:
            width = self.channels * self.multipliers[index]
            inputs = (entering, *(blocks - 1) * (width,))
            attends, resizes = index >= count - self.attention, index != order[-1]
            levels.append(Level(index, inputs, width, attends, resizes))
            entering = width
        return levels

    def shrunk(self) -> dict[str, object]:
        """Fewest channels and blocks at the same resolutions."""
        return {
            "channels": GROUPS,
            "multipliers": (1,) * len(self.multipliers),
            "blocks": 1,
            "attention": min(self.attention, 1),
        }


def convolution(inputs: int, outputs: int, side: int = 3) -> int:
    """Parameters of a convolution with bias."""
    return (side**2 * inputs + 1) * outputs


def residual_parameters(inputs: int, outputs: int) -> int:
    """Parameters of two group norms and two convolutions; a 1x1 one where the width changes."""
    shortcut = convolution(inputs, outputs, side=1) if inputs != outputs else 0
    convolutions = convolution(inputs, outputs) + convolution(outputs, outputs)
    return 2 * inputs + 2 * outputs + convolutions + shortcut


def attention_parameters(width: int) -> int:
    """Parameters of a group norm and four 1x1 convolutions."""
    return 2 * width + 4 * convolution(width, width, side=1)


def middle_parameters(width: int) -> int:
    """Parameters of a residual block, an attention and another residual block."""
    return 2 * residual_parameters(width, width) + attention_parameters(width)


def residual_activations(inputs: int, outputs: int) -> int:
    """Numbers kept per px: what enters and leaves each norm, and enters each convolution."""
    return 3 * inputs + 3 * outputs


def attention_activations(width: int) -> int:
    """Numbers kept per px: what enters and leaves the norm, q, k, v and what attention gives."""
    return 6 * width


def middle_activations(width: int) -> int:
    """Numbers kept per px by the blocks in the middle."""
    return 2 * residual_activations(width, width) + attention_activations(width)
