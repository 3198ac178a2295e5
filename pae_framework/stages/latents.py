"""Stage ``latents``: encode the training images into LightningDiT's shards, with statistics."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pae_framework.data.images import read_batch
from pae_framework.data.latents import shard_is_whole, shard_name, write_shard
from pae_framework.data.statistics import compute_statistics
from pae_framework.stages.context import StageContext
from pae_framework.stages.parts import trained_tokenizer
from pae_framework.tokenizer.model import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(context: StageContext) -> None:
    """Write every shard that is not there whole, then the statistics."""
    settings, source = context.recipe.latents, context.train_source
    tokenizer = trained_tokenizer(context)
    starts = range(0, len(source), settings.shard_size)
    with context.progress(len(source)) as progress:
        for shard, start in enumerate(starts):
            stop = min(start + settings.shard_size, len(source))
            path = context.directory / shard_name(0, shard)
            if not shard_is_whole(path, stop - start):
                _encode(context, tokenizer, torch.arange(start, stop), path)
            progress.update(stop)
    compute_statistics(context.directory).save(context.directory)


def _encode(context: StageContext, tokenizer: Tokenizer, indices: Tensor, path: Path) -> None:
    """Encode the images of one shard, plain and mirrored (twice plain where nothing flips)."""
    settings = context.recipe.latents
    plain, mirrored, labels = [], [], []
    for chunk in indices.split(settings.batch_size):
        images, classes = read_batch(context.train_source, chunk)
        images = images.to(context.device)
        latents = _latents(tokenizer, images)
        plain.append(latents)
        mirrored.append(
            _latents(tokenizer, images.flip(-1)) if context.recipe.data.flip else latents
        )
        labels.append(classes)
    dtype = DTYPES[settings.dtype]
    write_shard(path, torch.cat(plain).to(dtype), torch.cat(mirrored).to(dtype), torch.cat(labels))


@torch.no_grad()
def _latents(tokenizer: Tokenizer, images: Tensor) -> Tensor:
    return tokenizer.encode(images).latents.float().cpu()
