"""Parameters of the built-in generators. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from pae_framework.config import GeneratorConfig, LatentShape


@dataclass(frozen=True)
class Architecture:
    """Size of a LightningDiT: blocks, width D, attention heads H, patch side p in latent cells."""

    depth: int
    width: int
    heads: int
    patch: int


PRESETS = {
    "B/1": Architecture(12, 768, 12, 1),
    "B/2": Architecture(12, 768, 12, 2),
    "L/2": Architecture(24, 1024, 16, 2),
    "XL/1": Architecture(28, 1152, 16, 1),
    "XL/2": Architecture(28, 1152, 16, 2),
    "1p0B/1": Architecture(24, 1536, 24, 1),
    "1p0B/2": Architecture(24, 1536, 24, 2),
    "1p6B/1": Architecture(28, 1792, 28, 1),
    "1p6B/2": Architecture(28, 1792, 28, 2),
}
"""The sizes LightningDiT names; there is no L/1."""

Preset = Literal["B/1", "B/2", "L/2", "XL/1", "XL/2", "1p0B/1", "1p0B/2", "1p6B/1", "1p6B/2"]


class LightningDiTConfig(GeneratorConfig):
    """LightningDiT: a size by `preset`, or by `depth`, `width`, `heads` and `patch`."""

    preset: Preset | None = Field(None, description="named size, such as XL/1: size / patch")
    depth: int | None = Field(None, gt=0, description="blocks, where no preset is given")
    width: int | None = Field(None, gt=0, description="token width, where no preset is given")
    heads: int | None = Field(None, gt=0, description="attention heads, where no preset is given")
    patch: int | None = Field(
        None, gt=0, description="side of a token in latent cells, where no preset is given"
    )
    qk_norm: bool = Field(False, description="normalise queries and keys; steadier in long runs")
    channels: int | None = Field(None, gt=0, description="latent channels; null: as the latents")
    side: int | None = Field(None, gt=0, description="latent side; null: as the latents")

    @property
    def architecture(self) -> Architecture:
        """The size, from either way of writing it."""
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
        numbers = self._numbers()
        given = [key for key, value in numbers.items() if value is not None]
        missing = [key for key, value in numbers.items() if value is None]
        if self.preset is not None and given:
            raise ValueError(
                f"`preset` {self.preset} already says {', '.join(given)}; give one way"
            )
        if self.preset is None and not given:
            raise ValueError("no size: give `preset`, or `depth`, `width`, `heads` and `patch`")
        if self.preset is None and missing:
            raise ValueError(f"a size without `preset` also needs {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> LightningDiTConfig:
        size = self.architecture
        if size.width % size.heads:
            raise ValueError(f"{size.heads} heads do not divide the width {size.width}")
        if size.width // size.heads % 4:
            raise ValueError(
                f"width {size.width} / {size.heads} heads = {size.width // size.heads} per head; "
                "rotary positions need a multiple of 4"
            )
        return self

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents of another shape than stated, or that patches do not tile."""
        if self.channels is not None and self.channels != latent.channels:
            raise ValueError(
                f"`channels` is {self.channels}, but the latents are {latent}; "
                f"say {latent.channels} or null"
            )
        if self.side is not None and self.side != latent.side:
            raise ValueError(
                f"`side` is {self.side}, but the latents are {latent}; say {latent.side} or null"
            )
        if latent.side % self.architecture.patch:
            raise ValueError(
                f"patch {self.architecture.patch} does not divide the side of the latents, {latent}"
            )
