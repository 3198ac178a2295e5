"""The named sizes of the built-in generators. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Architecture:
    """Size of a transformer: blocks, width D, attention heads H, patch side p in latent cells."""

    depth: int
    width: int
    heads: int
    patch: int


@dataclass(frozen=True)
class HeadArchitecture:
    """Size of a DiT-DH: an encoder, and a head of few wide blocks, with the same patches."""

    encoder: Architecture
    head: Architecture


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
"""Sizes of LightningDiT's code; it has no L/1."""

Preset = Literal["B/1", "B/2", "L/2", "XL/1", "XL/2", "1p0B/1", "1p0B/2", "1p6B/1", "1p6B/2"]

_WIDE_HEAD = Architecture(2, 2048, 16, 1)

DH_PRESETS = {
    "S": HeadArchitecture(Architecture(12, 384, 6, 1), _WIDE_HEAD),
    "XL": HeadArchitecture(Architecture(28, 1152, 16, 1), _WIDE_HEAD),
}
"""The sizes of DiT-DH with released weights (RAE)."""

DHPreset = Literal["S", "XL"]


def gated_width(width: int) -> int:
    """Hidden width of the gated MLP: 2/3 of 4 D, rounded down."""
    return int(2 / 3 * (4 * width))
