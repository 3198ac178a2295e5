"""Parameters of DiT-DH. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator

from pae_framework.config import Depth, LatentShape, Side, Width
from pae_generators.config import SMOKE_SIZE, TransformerConfig, linear_parameters, time_parameters
from pae_generators.presets import DH_PRESETS, Architecture, DHPreset, HeadArchitecture

DH_SIZE_FIELDS = ("depth", "width", "heads", "head_depth", "head_width", "head_heads")
"""Fields of the size: those of the encoder, then those of the head."""


class DiTDHConfig(TransformerConfig):
    """DiT-DH. Its size is a `preset`, or the depth, width and heads of encoder and head."""

    time: Literal["noise_first", "data_first"] = Field(
        "data_first",
        description="what t = 0 means to the network: data (weights of RAE), or noise; everywhere "
        "else it means noise",
    )
    preset: DHPreset | None = Field(None, description="named size: S or XL")
    depth: Depth | None = Field(None, description="encoder blocks, without a preset")
    width: Width | None = Field(None, description="encoder width, without a preset")
    heads: Width | None = Field(None, description="encoder attention heads, without a preset")
    head_depth: Depth | None = Field(None, description="head blocks, without a preset")
    head_width: Width | None = Field(None, description="head width, without a preset")
    head_heads: Width | None = Field(
        None, description="attention heads of the head, without a preset"
    )
    patch: Side = Field(1, description="side of a patch in latent cells; 1 in RAE")

    @property
    def architecture(self) -> HeadArchitecture:
        """The size of the preset or of the fields, with ``patch``."""
        if self.preset is not None:
            size = DH_PRESETS[self.preset]
            encoder, head = (replace(part, patch=self.patch) for part in (size.encoder, size.head))
            return HeadArchitecture(encoder, head)
        depth, width, heads, head_depth, head_width, head_heads = (
            getattr(self, key) for key in DH_SIZE_FIELDS
        )
        head = Architecture(head_depth, head_width, head_heads, self.patch)
        return HeadArchitecture(Architecture(depth, width, heads, self.patch), head)

    @model_validator(mode="after")
    def _check_architecture(self) -> DiTDHConfig:
        self._check_one_size(self.preset, DH_SIZE_FIELDS)
        self._check_width(self.architecture.encoder)
        self._check_width(self.architecture.head)
        return self

    def check_latent(self, latent: LatentShape) -> None:
        """Reject latents whose shape is not the configured one or that patches do not tile."""
        super().check_latent(latent)
        self._check_tiles(self.patch, latent)

    def parameters(self, latent: LatentShape, num_classes: int) -> int:
        """Number of parameters, including fixed positions and frequencies."""
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
        """Numbers stored for the backward pass, per latent.

        Each head block also stores its modulation, 6 (or 4) numbers per token and channel.
        """
        size = self.architecture
        blocks = self.block_activations([size.encoder, size.head], latent.side)
        modulations = 6 if self.adaln_shift else 4
        tokens = (latent.side // self.patch) ** 2
        return blocks + tokens * modulations * size.head.depth * size.head.width

    def smoke(self) -> Self:
        """Two encoder and two head blocks of width 64 with the same patches, for any latents."""
        head = {f"head_{key}": value for key, value in SMOKE_SIZE.items()}
        return self.model_copy(update={**self._relaxed(), "preset": None, **SMOKE_SIZE, **head})
