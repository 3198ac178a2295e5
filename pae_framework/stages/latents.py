"""Stage ``latents``: encode the training images into shards in LightningDiT's format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from pae_framework.contracts import DataSource
from pae_framework.data.images import read_images
from pae_framework.data.latent_dataset import (
    is_complete_shard,
    shard_name,
    shard_paths,
    write_shard,
)
from pae_framework.data.pixels import to_float
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.statistics import compute_statistics
from pae_framework.errors import DataError, RunError
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.execution.items import do_items
from pae_framework.execution.run_latents import tokenizer_identity
from pae_framework.interop.latents_folder import adopt_latents_folder, adopt_statistics_file
from pae_framework.tokenizer.model import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(context: StageContext) -> None:
    """Write every shard that is missing or incomplete, then the statistics of all latents.

    Names and contents of shards do not depend on the number of processes. With ``latents.folder``
    or ``latents.statistics`` nothing is encoded.

    Raises:
        StoppedError: a signal asked to stop; shards in progress were finished.
    """
    if context.recipe.latents.written:
        _write_shards(context)
    if context.world.is_main:
        _find_statistics(context)


def _find_statistics(context: StageContext) -> None:
    settings = context.recipe.latents
    if settings.folder is not None:
        adopt_latents_folder(context)
    elif settings.statistics is not None:
        adopt_statistics_file(context, settings.statistics)
    else:
        _require_own_shards(context)
        statistics = compute_statistics(context.directory)
        statistics.save(context.directory, tokenizer_identity(context))


def _write_shards(context: StageContext) -> None:
    settings, images = context.recipe.latents, len(context.train_source)
    shards = -(-images // settings.shard_size)
    with context.progress(images) as progress:

        def show(written: int) -> None:
            progress.update(min(written * settings.shard_size, images))

        do_items(context, ShardWriter(context), shards, "shards", show)


def _require_own_shards(context: StageContext) -> None:
    """Reject a folder that holds other shards than those that the stage wrote."""
    shards = -(-len(context.train_source) // context.recipe.latents.shard_size)
    missing = {shard_name(0, shard) for shard in range(shards)}
    for path in shard_paths(context.directory):
        if path.name not in missing:
            raise DataError(f"{path} is not a shard of this run; move it away")
        missing.remove(path.name)
    if missing:
        raise RunError(
            f"{context.directory / min(missing)} was written, but is not listed; run again"
        )


class ShardWriter:
    """Writes shards of the training images' latents.

    ``latents`` are those of the images; ``latents_flip`` are those of the mirrored images if
    ``data.flip`` is on, else the same.
    """

    def __init__(self, context: StageContext, tokenizer: Tokenizer | None = None):
        self.context = context
        self.settings = context.recipe.latents
        self.tokenizer = tokenizer or trained_tokenizer(context)

    def __call__(self, shard: int) -> None:
        """Write one shard unless it is complete."""
        size, source = self.settings.shard_size, self.context.train_source
        indices = range(shard * size, min((shard + 1) * size, len(source)))
        path = self.context.directory / shard_name(0, shard)
        if is_complete_shard(path, len(indices)):
            return
        plain, mirrored, labels = [], [], []
        flip = self.context.recipe.data.flip
        for images, classes in self._read(indices):
            latents = self._encode(images)  # (B, C, h, w)
            plain.append(latents)
            mirrored.append(self._encode(images.flip(-1)) if flip else latents)
            labels.append(classes)
        write_shard(path, torch.cat(plain), torch.cat(mirrored), torch.cat(labels))

    def _read(self, indices: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, 3, S, S) in [0, 1], on the device, and labels (B,), batch by batch."""
        size = self.settings.batch_size
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        read = partial(_read_batch, self.context.train_source, batches)
        for images, labels in read_steps(read, 0, len(batches), self.settings.workers):
            yield to_float(images).to(self.context.device), labels

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w), as they are stored, of images (B, 3, S, S) in [0, 1]."""
        return self.tokenizer.encode(images).latents.to("cpu", DTYPES[self.settings.dtype])


def _read_batch(source: DataSource, batches: Sequence[range], number: int) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) uint8 and labels (B,) of one batch."""
    return read_images(source, batches[number])
