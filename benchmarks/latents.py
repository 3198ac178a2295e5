"""Latents: writing shards compared with encoding alone; reading shards compared with memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.subject import Subject
from benchmarks.timing import Timing, in_turn, repeated
from pae_framework.build import build_encoder, build_source, build_tokenizer
from pae_framework.data.images import read_images
from pae_framework.data.latent_dataset import LatentBatches, LatentDataset, shard_name, write_shard
from pae_framework.data.pixels import to_float
from pae_framework.data.statistics import compute_statistics
from pae_framework.data.stream import CountStream
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
    """Read images, encode them and their mirror images, write a shard; compared with encoding."""
    loaded = load_recipe("quickstart", ["data.image_size=32"], load_registry())
    data, section = loaded.recipe.data, loaded.recipe.tokenizer
    source = build_source(data.train, data.image_size, loaded.registry)
    encoder = build_encoder(section.encoder, data.image_size, loaded.registry)
    tokenizer = build_tokenizer(section, data.image_size, loaded.registry, encoder)
    tokenizer.eval().to(subject.device)
    still = to_float(read_images(source, range(images))[0]).to(subject.device)

    @torch.no_grad()
    def encode(batch: Tensor) -> Tensor:
        return tokenizer.encode(batch).latents

    def alone() -> None:
        encode(still)
        encode(still.flip(-1))

    def whole() -> None:
        batch, labels = read_images(source, range(images))
        batch = to_float(batch).to(subject.device)
        with tempfile.TemporaryDirectory() as folder:
            write_shard(
                Path(folder) / shard_name(0, 0), encode(batch), encode(batch.flip(-1)), labels
            )

    ways = {"encoding alone": alone, "read, encoded, written": whole}
    return in_turn({name: repeated(way, 1, subject.device) for name, way in ways.items()}, rounds)
