"""Stage ``latents``: encode the training images into shards in LightningDiT's format."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pae_framework.contracts import Tokenizer
from pae_framework.data.latent_dataset import (
    is_complete_shard,
    shard_name,
    shard_paths,
    write_shard,
)
from pae_framework.data.statistics import (
    LatentStatistics,
    compute_statistics,
    statistics_of,
    statistics_rows,
)
from pae_framework.errors import DataError, RunError, StoppedError
from pae_framework.execution.context import StageContext
from pae_framework.execution.encoded_shards import EncodedShards, Throughput
from pae_framework.execution.items import pass_items
from pae_framework.execution.run_latents import tokenizer_identity
from pae_framework.execution.unstored_latents import (
    encoded_batches,
    encoding_tokenizer,
    latent_encoder,
)
from pae_framework.interop.latents_folder import adopt_latents_folder, adopt_statistics_file
from pae_framework.recipe.derived import latent_shape

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(context: StageContext) -> None:
    """Write every shard that is missing or incomplete, then the statistics of all latents.

    Names and contents of shards do not depend on the number of processes. With ``latents.folder``
    or ``latents.statistics`` nothing is encoded. Without ``latents.stored`` the images of the
    statistics are encoded, and no shard is written.

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
        _own_statistics(context).save(context.directory, tokenizer_identity(context))


def _own_statistics(context: StageContext) -> LatentStatistics:
    written = context.recipe.latents.written
    if written:
        _require_own_shards(context)
    if not context.recipe.latents.normalize:
        return LatentStatistics.none(latent_shape(context.recipe).channels)
    if written:
        return compute_statistics(context.directory)
    encode = latent_encoder(encoding_tokenizer(context), context.recipe.latents, context.device)
    rows = statistics_rows(len(context.train_source))
    return statistics_of(encoded_batches(context, encode, rows), context.directory)


def _write_shards(context: StageContext) -> None:
    tokenizer = encoding_tokenizer(context)
    shards, throughput = encoded_latents(context, tokenizer), Throughput()
    images = len(context.train_source)
    with context.progress(images) as progress:

        def show(written: int) -> None:
            progress.update(min(written * shards.shard_size, images))

        try:
            pass_items(context, partial(shards.pipeline, throughput), len(shards), "shards", show)
        except StoppedError:
            _report(context, throughput)
            raise
        _report(context, throughput)


def _report(context: StageContext, throughput: Throughput) -> None:
    """Print and record the main process' throughput, if it encoded anything."""
    if not context.world.is_main or not throughput.images:
        return
    found = throughput.summary()
    context.update_record(throughput=found)
    shares = ", ".join(f"{reason} {share:.0%}" for reason, share in found["shares"].items())
    who = f" in each of {context.world.size} processes" if context.world.size > 1 else ""
    context.console.print(
        f"{'':<10} {found['images_per_s']:.0f} images/s{who}; share of the time: {shares}"
    )


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


def encoded_latents(context: StageContext, tokenizer: Tokenizer) -> EncodedShards:
    """The shards of the training images' latents.

    ``latents`` are those of the images; ``latents_flip`` are those of the mirrored images if
    ``data.flip`` is on, else the same.
    """
    settings, directory, device = context.recipe.latents, context.directory, context.device
    encoded = latent_encoder(tokenizer, settings, device)

    def encode(images: Tensor) -> Tensor:
        return encoded(images).to(DTYPES[settings.dtype])  # (B, C, h, w)

    return EncodedShards(
        context.train_source,
        settings.shard_size,
        settings.batch_size,
        settings.workers,
        device,
        context.recipe.data.flip,
        encode,
        is_complete=lambda shard, rows: is_complete_shard(directory / shard_name(0, shard), rows),
        write=lambda shard, *rows: write_shard(directory / shard_name(0, shard), *rows),
    )
