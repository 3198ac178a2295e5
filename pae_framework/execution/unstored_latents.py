"""Latents that are encoded when they are needed, of runs that store none (``latents.stored``).

Legend: B batch, S image side in px, latents (C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from pae_framework.contracts import Tokenizer
from pae_framework.data.data_settings import LatentsSettings
from pae_framework.data.images import read_images
from pae_framework.data.pixels import to_float_on
from pae_framework.data.read_ahead import read_ahead
from pae_framework.errors import StoppedError
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.system.stopping import StopRequest
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


def encoded_batches(context: StageContext, encode: Encode, indices: Tensor) -> Iterator[Tensor]:
    """Latents (B, C, h, w) float32, not normalized, of training images, in order, on the CPU.

    Shows progress.

    Raises:
        StoppedError: a signal asked to stop.
    """
    settings, read = context.recipe.latents, partial(read_images, context.train_source)
    parts = [part.tolist() for part in indices.split(settings.batch_size)]
    done = 0
    with StopRequest("this batch") as stop, context.progress(len(indices)) as progress:
        for images, _ in read_ahead(read, parts, settings.workers):
            if stop.asked:
                raise StoppedError(
                    f"stopped with {done} of {len(indices)} images encoded", stop.number
                )
            yield encode(to_float_on(images, context.device)).float().cpu()
            done += len(images)
            progress.update(done)
