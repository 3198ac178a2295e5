"""Latents: reading shuffled batches from shards, against reading them in order from memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.subject import Subject
from benchmarks.timing import Timing, in_turn, repeated
from pae_framework.data.latent_batches import LatentBatches
from pae_framework.data.latents import LatentDataset, shard_name, write_shard
from pae_framework.data.statistics import compute_statistics
from pae_framework.data.stream import CountStream

ROWS = 4000


def reading(subject: Subject, rounds: int, batches: int) -> list[Timing]:
    """A shuffled, normalised batch from mapped shards, against slices of a tensor in memory."""
    shape = (ROWS, subject.channels, subject.side, subject.side)
    everything = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(ROWS, dtype=torch.int64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shard, part in enumerate(everything.split(1000)):
            write_shard(folder / shard_name(0, shard), part, part.flip(-1), labels[: len(part)])
        stream = CountStream(ROWS, subject.batch, seed=0)
        ours = LatentBatches(LatentDataset(folder), compute_statistics(folder), stream)
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
