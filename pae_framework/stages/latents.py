"""Stage ``latents``: encode the training images into LightningDiT's shards, with statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.data.images import read_batch
from pae_framework.data.latents import shard_is_whole, shard_name, write_shard
from pae_framework.data.statistics import compute_statistics
from pae_framework.stages.context import StageContext
from pae_framework.stages.loaded_statistics import take_statistics
from pae_framework.stages.normalisation import tokenizer_identity
from pae_framework.stages.parts import trained_tokenizer
from pae_framework.stages.processes import in_processes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(context: StageContext) -> None:
    """Write every shard that is not there whole, then the statistics.

    Shards are named and cut as by one process, whichever process writes them. With
    ``latents.statistics`` there are no shards, and the statistics are those of that file.

    Raises:
        RunError: a process failed; its shards that are whole stay.
    """
    if context.recipe.latents.statistics is not None:
        take_statistics(context, context.recipe.latents.statistics)
        return
    settings, images = context.recipe.latents, len(context.train_source)
    shards = -(-images // settings.shard_size)
    with context.progress(images) as progress:

        def show(written: int) -> None:
            progress.update(min(written * settings.shard_size, images))

        if settings.processes > 1:
            in_processes(context, ShardWriter, shards, settings.processes, show)
        else:
            write = ShardWriter(context)
            for shard in range(shards):
                write(shard)
                show(shard + 1)
    statistics = compute_statistics(context.directory)
    statistics.save(context.directory, tokenizer_identity(context))


class ShardWriter:
    """Writes shards of the training images' latents.

    ``latents`` are those of the images as they are, ``latents_flip`` those of their mirror images;
    both the same where the recipe mirrors nothing.
    """

    def __init__(self, context: StageContext):
        self.context = context
        self.settings = context.recipe.latents
        self.tokenizer = trained_tokenizer(context)

    def __call__(self, shard: int) -> None:
        """Write one shard, unless it is there whole."""
        size, source = self.settings.shard_size, self.context.train_source
        indices = torch.arange(shard * size, min((shard + 1) * size, len(source)))
        path = self.context.directory / shard_name(0, shard)
        if shard_is_whole(path, len(indices)):
            return
        plain, mirrored, labels = [], [], []
        for chunk in indices.split(self.settings.batch_size):
            images, classes = read_batch(source, chunk)
            images = images.to(self.context.device)
            latents = self._encode(images)
            plain.append(latents)
            flip = self.context.recipe.data.flip
            mirrored.append(self._encode(images.flip(-1)) if flip else latents)
            labels.append(classes)
        write_shard(path, torch.cat(plain), torch.cat(mirrored), torch.cat(labels))

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w), as they are stored, of images (B, 3, S, S) in [0, 1]."""
        return self.tokenizer.encode(images).latents.to("cpu", DTYPES[self.settings.dtype])
