"""Parameters of DiT-DH. No torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pae_framework.config import LatentShape
from pae_generators.config import (
    SMOKE_SIZE,
    TransformerConfig,
    check_one_size,
    check_tiles,
    linear_parameters,
    time_parameters,
)
from pae_generators.presets import DH_PRESETS, Architecture, DHPreset, HeadArchitecture


class DiTDHConfig(TransformerConfig):
    """DiT-DH: a size by `preset`, or by the depth, width and heads of encoder and head."""

    time: Literal["noise_first", "data_first"] = Field(
        "data_first",
        description="what t = 0 means inside the network: data, as in RAE's weights, or noise; "
        "outside it is always noise",
    )
    preset: DHPreset | None = Field(None, description="named size: S or XL")
    depth: int | None = Field(None, gt=0, description="encoder blocks, without a preset")
    width: int | None = Field(None, gt=0, description="encoder width, without a preset")
    heads: int | None = Field(None, gt=0, description="encoder attention heads, without a preset")
    head_depth: int | None = Field(None, gt=0, description="head blocks, without a preset")
    head_width: int | None = Field(None, gt=0, description="head width, without a preset")
    head_heads: int | None = Field(
        None, gt=0, description="attention heads of the head, without a preset"
    )
    patch: int = Field(1, gt=0, description="side of a token in latent cells; 1 in RAE")

    @property
    def architecture(self) -> HeadArchitecture:
        """The size, by preset or by numbers."""
        if self.preset is None:
            size = {key: value for key, value in self._numbers().items() if value}
            assert len(size) == 6
            return HeadArchitecture(
                Architecture(size["depth"], size["width"], size["heads"], self.patch),
                Architecture(
                    size["head_depth"], size["head_width"], size["head_heads"], self.patch
                ),
            )
        encoder, head = DH_PRESETS[self.preset].encoder, DH_PRESETS[self.preset].head
        return HeadArchitecture(
            Architecture(encoder.depth, encoder.width, encoder.heads, self.patch),
            Architecture(head.depth, head.width, head.heads, self.patch),
        )

    def _numbers(self) -> dict[str, int | None]:
        return {
            "depth": self.depth,
            "width": self.width,
            "heads": self.heads,
            "head_depth": self.head_depth,
            "head_width": self.head_width,
            "head_heads": self.head_heads,
        }

    @model_validator(mode="after")
    def _one_size(self) -> DiTDHConfig:
        numbers = self._numbers()
        check_one_size(self.preset, numbers, f"`preset` (S or XL), or {', '.join(numbers)}")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> DiTDHConfig:
        self._check_size(self.architecture.encoder)
        self._check_size(self.architecture.head)
        return self

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents of a shape other than the config states, or that patches do not tile."""
        super().check_latent(latent)
        check_tiles(self.patch, latent)

    def parameters(self, latent: LatentShape, num_classes: int) -> int:
        """Number of parameters, fixed positions and frequencies included."""
        encoder, head = self.architecture.encoder, self.architecture.head
        same = encoder.width == head.width
        return (
            self.input_parameters(encoder, latent, num_classes)
            + time_parameters(encoder.width, "fourier")
            + encoder.depth * self.block_parameters(encoder)
            + (0 if same else linear_parameters(encoder.width, head.width))
            + linear_parameters(latent.channels * head.patch**2, head.width)
            + head.depth * self.block_parameters(head)
            + self.final_parameters(head, latent.channels)
        )

    def activations(self, latent: LatentShape) -> int:
        """Numbers stored for the backward pass of one latent.

        Each head block also stores its modulation, 6 (or 4) numbers per token and channel.
        """
        size = self.architecture
        blocks = self.block_activations([size.encoder, size.head], latent.side)
        modulations = 6 if self.adaln_shift else 4
        tokens = (latent.side // self.patch) ** 2
        return blocks + tokens * modulations * size.head.depth * size.head.width

    def smoke(self) -> Self:
        """Two encoder and two head blocks of width 64 on the same patches, on any latents."""
        head = {f"head_{key}": value for key, value in SMOKE_SIZE.items()}
        return self.model_copy(update={**self._relaxed(), "preset": None, **SMOKE_SIZE, **head})
