"""Tokens of the frozen encoder, computed once for all trainings that need them.

They lie in ``features/`` of the run's store, in a folder whose name is a hash of what they depend
on: encoder, weights, images, size, mirroring, precision. So members of a sweep share them: one
computes them and holds their folder meanwhile, and the others wait. The folder may be removed when
no training is under way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_framework.contracts import DataSource, Encoder
from pae_framework.data.feature_shards import (
    FeatureRows,
    feature_shard_name,
    is_complete_features,
    write_features,
)
from pae_framework.errors import DataError, StoppedError
from pae_framework.execution.context import StageContext
from pae_framework.execution.encoded_shards import EncodedShards, Throughput
from pae_framework.execution.items import pass_items
from pae_framework.runs.locks import holding
from pae_framework.system.files import clear_unfinished
from pae_framework.tensor_files import weights_digest
from pae_framework.training.progress import ProgressLine
from pae_framework.training.train_settings import TrainSettings

FOLDER = "features"
"""Name of their folder in the store."""
BATCH = 128
"""Images encoded at once."""
SHARD_BYTES = 1 << 28
"""Size of a shard with float32 tokens, without those of mirrored images."""
_HASHED = ("image_size", "train_images", "encoder")
"""What tokens depend on, among the hashed values of the stages that read them."""


def cached_features(
    context: StageContext, settings: TrainSettings, encoder: Encoder
) -> FeatureRows | None:
    """The frozen encoder's tokens of the training images; None unless the recipe caches them.

    Every process calls it. Those that are not on the disk are computed first, by all processes.

    Args:
        context: of a stage whose hashed values name the encoder.
        settings: of its training.
        encoder: frozen, on the device.

    Raises:
        DataError: images differ from one read to the next, or shards are damaged.
        StoppedError: a signal asked to stop; shards in progress were finished.
    """
    recipe, source = context.recipe, context.train_source
    if not recipe.tokenizer_section.cache_features:
        return None
    context.world.on_main(lambda: _require_fixed_images(source))
    folder = context.run.store / FOLDER / _key(context, settings, encoder)
    shards = _feature_shards(context, settings, encoder, folder)
    with ExitStack() as lock:
        context.world.on_main(lambda: lock.enter_context(_held(context, folder)))
        stopped = _compute(context, shards)
    if context.world.on_main(lambda: stopped is not None):  # only the main process gets the error
        raise stopped or StoppedError("stopped")
    paths = [folder / feature_shard_name(shard) for shard in range(len(shards))]
    return FeatureRows(paths, recipe.data.flip)


@contextmanager
def _held(context: StageContext, folder: Path) -> Iterator[None]:
    """Hold the folder, so that no other run computes the same, and remove what was not finished."""

    def waiting(holder: str) -> None:
        context.console.print(
            f"{'':<10} features: waiting for {holder}", highlight=False, markup=False
        )

    with holding(folder, waiting):
        clear_unfinished(folder)
        yield


def _compute(context: StageContext, shards: EncodedShards) -> StoppedError | None:
    """Compute the shards that are not complete; returns the error if that was stopped."""
    images = len(shards.source)
    with ProgressLine("features", images, 0, context.console) as progress:
        try:
            pass_items(
                context,
                partial(shards.pipeline, Throughput()),
                len(shards),
                "shards of features",
                lambda done: progress.update(min(done * shards.shard_size, images)),
            )
        except StoppedError as error:
            return error
    return None


def _feature_shards(
    context: StageContext, settings: TrainSettings, encoder: Encoder, folder: Path
) -> EncodedShards:
    source, device, flip = context.train_source, context.device, context.recipe.data.flip
    bf16 = settings.precision == "bf16"

    def encode(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return encoder(encoder.normalize(images)).tokens

    def write(shard: int, tokens: Tensor, mirrored: Tensor, labels: Tensor) -> None:
        write_features(folder / feature_shard_name(shard), tokens, mirrored if flip else None)

    return EncodedShards(
        source,
        shard_size=max(1, SHARD_BYTES // (4 * encoder.grid**2 * encoder.width)),
        batch_size=BATCH,
        workers=settings.workers,
        device=device,
        flip=flip,
        encode=encode,
        is_complete=lambda shard, rows: is_complete_features(
            folder / feature_shard_name(shard), rows, flip
        ),
        write=write,
    )


def _key(context: StageContext, settings: TrainSettings, encoder: Encoder) -> str:
    parts: dict[str, Any] = context.planned.hashed["parts"]
    content = {
        **{key: parts[key] for key in _HASHED},
        "weights": weights_digest(encoder),
        "flip": context.recipe.data.flip,
        "precision": settings.precision,
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()


def _require_fixed_images(source: DataSource) -> None:
    """Reject a source whose images are random views, which have no tokens of their own."""
    for index in sorted({0, len(source) // 2, len(source) - 1}):
        if not torch.equal(source[index].image, source[index].image):
            raise DataError(
                f"data.train ({type(source).__qualname__}): image {index} differs from one read to "
                "the next, so its features cannot be cached; set tokenizer.cache_features=false"
            )
