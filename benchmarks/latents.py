"""Latents: the pipeline compared with its parts alone; reading shards compared with memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.subject import Subject
from benchmarks.timing import Timing, Way, in_turn, repeated
from pae_framework.build import build_encoder, build_tokenizer
from pae_framework.contracts import DataSource
from pae_framework.data.images import read_images
from pae_framework.data.latent_dataset import LatentBatches, LatentDataset, shard_name, write_shard
from pae_framework.data.statistics import compute_statistics
from pae_framework.data.stream import CountStream
from pae_framework.execution.encoded_shards import EncodedShards, Throughput
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe

ROWS = 4000


def reading(subject: Subject, rounds: int, batches: int) -> list[Timing]:
    """A shuffled, normalized batch from memory-mapped shards, compared with slices in memory."""
    shape = (ROWS, subject.channels, subject.side, subject.side)
    everything = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(ROWS, dtype=torch.int64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shard, part in enumerate(everything.split(1000)):
            write_shard(folder / shard_name(0, shard), part, part.flip(-1), labels[: len(part)])
        stream = CountStream(ROWS, subject.batch, seed=0)
        ours = LatentBatches(LatentDataset(folder), compute_statistics(folder).normalize, stream)
        steps = iter(range(10**9))

        def slices() -> None:
            start = next(steps) * subject.batch % (ROWS - subject.batch)
            (everything[start : start + subject.batch].clone() - 0.0) / 1.0

        return in_turn(
            {
                "slices in memory": repeated(slices, batches, torch.device("cpu")),
                "shuffled from shards": repeated(
                    lambda: ours.read(next(steps)), batches, torch.device("cpu")
                ),
            },
            rounds,
        )


def extraction(subject: Subject, rounds: int, images: int) -> list[Timing]:
    """The pipeline of stage ``latents``, compared with the slower of loading and encoding alone.

    JPEG files of 128 px, cropped to 32 px; encoded with their mirror images by quickstart's
    tokenizer. One process loads. Last, the same parts one after the other, shard by shard.
    """
    loaded = load_recipe("quickstart", ["data.image_size=32"], load_registry())
    data, section = loaded.recipe.data, loaded.recipe.tokenizer
    encoder = build_encoder(section.encoder, data.image_size, loaded.registry)
    tokenizer = build_tokenizer(section, data.image_size, loaded.registry, encoder)
    tokenizer.eval().to(subject.device)
    with tempfile.TemporaryDirectory() as name:
        shards = shards_of_jpegs(
            Path(name),
            lambda batch: tokenizer.encode(batch).latents,
            subject.device,
            images,
            sides=(128, data.image_size),
            batch=32,
            workers=1,
        )

        def apart() -> None:
            for number in range(len(shards)):
                _run(shards, [number])

        return in_turn(
            {
                **stage_and_parts(shards),
                "stage latents, shard by shard": repeated(apart, 1, subject.device),
            },
            rounds,
            baselines=2,
        )


def shards_of_jpegs(
    folder: Path,
    encode: Callable[[Tensor], Tensor],
    device: torch.device,
    images: int,
    sides: tuple[int, int],
    batch: int,
    workers: int,
) -> EncodedShards:
    """Four shards of the latents of JPEG files and of their mirror images; none is kept.

    Args:
        folder: for the files and the shards.
        encode: images (B, 3, S, S) in [0, 1] to latents, on the device.
        device: of the tokenizer.
        images: number of files.
        sides: of the files and of the images that are encoded, in px.
        batch: images encoded at once.
        workers: processes that load.
    """
    latents = folder / "latents"
    return EncodedShards(
        _jpegs(folder, images, sides),
        shard_size=-(-images // 4),
        batch_size=batch,
        workers=workers,
        device=device,
        flip=True,
        encode=encode,
        is_complete=lambda shard, rows: False,
        write=lambda shard, *rows: write_shard(latents / shard_name(0, shard), *rows),
    )


def stage_and_parts(shards: EncodedShards) -> dict[str, Way]:
    """Loading alone, encoding alone, and the pipeline of stage ``latents``: each all images."""
    images, batch = len(shards.source), shards.batch_size
    still = read_images(shards.source, range(min(batch, images)))[0]

    def loading() -> None:
        for _ in shards.batches(range(len(shards))):
            pass

    @torch.no_grad()
    def encoding() -> None:
        for start in range(0, images, batch):
            shards.encoded(still[: images - start])

    ways: dict[str, Callable[[], None]] = {
        "loading alone": loading,
        "encoding alone": encoding,
        "stage latents": lambda: _run(shards, range(len(shards))),
    }
    return {name: repeated(way, 1, shards.device) for name, way in ways.items()}


def _run(shards: EncodedShards, numbers: Iterable[int]) -> None:
    for _ in shards.pipeline(Throughput(), numbers, lambda: False):
        pass


def _jpegs(folder: Path, images: int, sides: tuple[int, int]) -> DataSource:
    """Noise as JPEG files of one class; ``sides`` of the files and of what is read, in px."""
    random = np.random.default_rng(0)
    (folder / "images" / "only").mkdir(parents=True)
    for index in range(images):
        small = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((sides[0], sides[0]), Image.Resampling.BICUBIC)
        image.save(folder / "images" / "only" / f"{index:05d}.jpg", quality=90)
    spec = load_registry().find("dataset", "image_folder")
    source: DataSource = spec.component_class()(
        spec.config_class()(folder=str(folder / "images")), sides[1]
    )
    return source
