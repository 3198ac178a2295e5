"""Latents that are encoded when they are needed, of runs that store none (``latents.stored``).

Legend: B batch, S image side in px, latents (C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pae_framework.contracts import Tokenizer
from pae_framework.data.data_settings import LatentsSettings
from pae_framework.data.images import read_images
from pae_framework.data.pixels import to_float_on
from pae_framework.data.read_ahead import read_ahead
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.tokenizer.frozen_types import cast_for_encoding

Encode = Callable[[Tensor], Tensor]
"""Maps images (B, 3, S, S) in [0, 1], on the device, to latents (B, C, h, w)."""


def encoding_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, frozen, on the device, in the types in which it encodes."""
    tokenizer = trained_tokenizer(context)
    if context.recipe.latents.precision == "bf16":
        cast_for_encoding(tokenizer, context.recipe.data.image_size)
    return tokenizer


def latent_encoder(tokenizer: Tokenizer, settings: LatentsSettings, device: torch.device) -> Encode:
    """How a tokenizer encodes, without gradients: under autocast, or outside of the caller's."""
    bf16 = settings.precision == "bf16"

    def encode(images: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return tokenizer.encode(images).latents

    return encode


class EncodedRows:
    """The latents of the training images as rows, each encoded when it is read."""

    def __init__(self, context: StageContext, encode: Encode):
        self._source, self._device = context.train_source, context.device
        self._settings, self._encode = context.recipe.latents, encode

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Tensor) -> Tensor:
        """Latents (B, C, h, w) float32, not normalized, of images (B,), on the CPU."""
        read = partial(read_images, self._source)
        parts = [chunk.tolist() for chunk in indices.split(self._settings.batch_size)]
        batches = read_ahead(read, parts, self._settings.workers)
        latents = [self._encode(to_float_on(images, self._device)) for images, _ in batches]
        return torch.cat([part.float().cpu() for part in latents])
