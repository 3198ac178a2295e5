"""Reading latents for training: every epoch holds every row once, whoever reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.data.latent_dataset import LatentBatches, LatentDataset, shard_name, write_shard
from pae_framework.data.statistics import LatentStatistics
from pae_framework.data.stream import CountStream

EPOCHS = 2
SHARDS = st.lists(st.integers(1, 7), min_size=1, max_size=5)
BATCH, START, SEED = st.integers(1, 12), st.integers(0, 30), st.integers(0, 3)


def write(folder: Path, sizes: Sequence[int]) -> None:
    """Shards of these sizes, of two ranks in turn; row i holds i + 1, mirrored -(i + 1)."""
    names = sorted(shard_name(place % 2, place // 2) for place in range(len(sizes)))
    first = 1
    for name, size in zip(names, sizes, strict=True):
        numbers = torch.arange(first, first + size)
        latents = numbers.float().view(-1, 1, 1, 1).expand(-1, 2, 2, 2)
        write_shard(folder / name, latents, -latents, numbers % 5)
        first += size


def rows_read(
    folder: Path, batch_size: int, start: int, seed: int, workers: int
) -> tuple[list[int], int]:
    """Numbers of the rows, in the order read from the first epoch that begins at or after step
    ``start`` on, for some epochs; and how many rows there are."""
    dataset = LatentDataset(folder)
    length = len(dataset)
    unit = LatentStatistics(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
    stream = CountStream(length, batch_size, seed)
    first = -(-start * batch_size // length) * length  # position of that epoch's first sample
    stop = -(-(first + EPOCHS * length) // batch_size)
    found: list[int] = []
    for latents, labels in LatentBatches(dataset, unit.normalize, stream, workers)(start, stop):
        numbers = latents[:, 0, 0, 0].abs().long()
        assert (latents.abs() == numbers.view(-1, 1, 1, 1)).all()  # of one row, whole
        assert labels.tolist() == (numbers % 5).tolist()
        found += numbers.tolist()
    return found[first - start * batch_size :][: EPOCHS * length], length


def check(sizes: Sequence[int], batch_size: int, start: int, seed: int, workers: int) -> None:
    with TemporaryDirectory() as folder:
        write(Path(folder), sizes)
        found, length = rows_read(Path(folder), batch_size, start, seed, workers)
    assert length == sum(sizes)
    assert len(found) == EPOCHS * length
    for epoch in (found[:length], found[length:]):
        assert sorted(epoch) == list(range(1, length + 1))


@settings(max_examples=40)
@given(SHARDS, BATCH, START, SEED)
def test_each_epoch_has_each_row_once(
    sizes: list[int], batch_size: int, start: int, seed: int
) -> None:
    check(sizes, batch_size, start, seed, workers=0)


@settings(max_examples=5)
@given(SHARDS, BATCH, START, SEED, st.integers(1, 2))
def test_each_epoch_has_each_row_once_with_workers(
    sizes: list[int], batch_size: int, start: int, seed: int, workers: int
) -> None:
    check(sizes, batch_size, start, seed, workers)
