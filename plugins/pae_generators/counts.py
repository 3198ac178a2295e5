"""What a generator holds in memory, without building it: parameters and activations. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pae_framework.config import LatentShape
from pae_generators.presets import Architecture, gated_width

if TYPE_CHECKING:
    from pae_generators.config import LightningDiTConfig, TransformerConfig
    from pae_generators.config_dh import DiTDHConfig

SINUSOIDS = 256
"""Sines and cosines LightningDiT's time embedding starts from, together."""
FOURIER = 256
"""Frequencies of RAE's time embedding; each gives a sine and a cosine."""


def lightningdit(config: LightningDiTConfig, latent: LatentShape, num_classes: int) -> int:
    """Parameters of a LightningDiT."""
    size = config.architecture
    out = latent.channels * (2 if config.learn_sigma else 1)
    return (
        _inputs(config, size, latent, num_classes)
        + _time(size.width, config.time_embedding)
        + size.depth * _block(config, size)
        + _final(config, size, out)
    )


def dit_dh(config: DiTDHConfig, latent: LatentShape, num_classes: int) -> int:
    """Parameters of a DiT-DH."""
    encoder, head = config.architecture.encoder, config.architecture.head
    same = encoder.width == head.width
    return (
        _inputs(config, encoder, latent, num_classes)
        + _time(encoder.width, "fourier")
        + encoder.depth * _block(config, encoder)
        + (0 if same else _linear(encoder.width, head.width))
        + _linear(latent.channels * head.patch**2, head.width)
        + head.depth * _block(config, head)
        + _final(config, head, latent.channels)
    )


def activations(config: TransformerConfig, sizes: Sequence[Architecture], side: int) -> int:
    """Numbers one latent leaves for the backward pass, in blocks of these sizes.

    Per token and channel: both norms' inputs, outputs and modulated outputs (6), q, k, v and what
    attention gives (4), what the gates multiply (2), the MLP (8 around GELU; four times its hidden
    width with SwiGLU: both halves, the gate's SiLU, the product), and q and k turned (2).
    """
    total = 0
    for size in sizes:
        mlp = 4 * gated_width(size.width) if config.mlp == "swiglu" else 8 * size.width
        channels = (14 if config.rope else 12) * size.width + mlp
        total += (side // size.patch) ** 2 * size.depth * channels
    return total


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _inputs(
    config: TransformerConfig, size: Architecture, latent: LatentShape, num_classes: int
) -> int:
    """Patch embedding, fixed positions, and a label table with a null row."""
    positions = (latent.side // size.patch) ** 2 * size.width if config.absolute_positions else 0
    classes = num_classes if config.classes is None else config.classes
    labels = (classes + 1) * size.width
    return _linear(latent.channels * size.patch**2, size.width) + positions + labels


def _time(width: int, embedding: str) -> int:
    fourier = embedding == "fourier"
    first = FOURIER + _linear(2 * FOURIER, width) if fourier else _linear(SINUSOIDS, width)
    return first + _linear(width, width)


def _block(config: TransformerConfig, size: Architecture) -> int:
    width, head = size.width, size.width // size.heads
    rms = config.norm == "rms"
    attention = _linear(width, 3 * width) + _linear(width, width)
    if config.qk_norm:
        attention += 2 * head * (1 if rms else 2)
    if config.mlp == "swiglu":
        hidden = gated_width(width)
        mlp = _linear(width, 2 * hidden) + _linear(hidden, width)
    else:
        mlp = _linear(width, 4 * width) + _linear(4 * width, width)
    modulation = _linear(width, (6 if config.adaln_shift else 4) * width)
    return attention + mlp + modulation + (2 * width if rms else 0)


def _final(config: TransformerConfig, size: Architecture, channels: int) -> int:
    norm = size.width if config.norm == "rms" else 0
    out = _linear(size.width, size.patch**2 * channels)
    return norm + out + _linear(size.width, 2 * size.width)
