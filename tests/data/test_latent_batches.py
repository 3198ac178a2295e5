"""Batches of latents: which rows, normalized how, the same whatever reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pae_framework.data.latent_dataset import LatentBatches, LatentDataset, shard_name, write_shard
from pae_framework.data.statistics import LatentStatistics
from pae_framework.data.stream import CountStream, positions_of


@pytest.fixture
def dataset(tmp_path: Path) -> LatentDataset:
    """Two shards; the latent of row i is i, of its mirror image -i."""
    for number, rows in enumerate([torch.arange(0, 6), torch.arange(6, 10)]):
        latents = rows.float().view(-1, 1, 1, 1).expand(-1, 2, 3, 3)
        write_shard(tmp_path / shard_name(0, number), latents, -latents, rows % 4)
    return LatentDataset(tmp_path)


def batches(dataset: LatentDataset, workers: int = 0) -> LatentBatches:
    mean, std = (torch.full((1, 2, 1, 1), value) for value in (1.0, 2.0))
    stream = CountStream(len(dataset), batch_size=4, seed=3)
    return LatentBatches(dataset, LatentStatistics(mean, std).normalize, stream, workers)


def test_a_batch_has_the_rows_and_flips_of_the_stream_normalized(dataset):
    stream = CountStream(len(dataset), batch_size=4, seed=3)
    flips = [stream.flips(step).tolist() for step in range(2, 6)]
    assert any(map(any, flips))
    assert not all(map(all, flips))
    found = list(batches(dataset)(2, 6))
    assert len(found) == 4
    for step, (latents, labels) in enumerate(found, start=2):
        rows, sign = stream.batch(step), 1 - 2 * stream.flips(step).float()
        assert torch.equal(latents[:, 0, 0, 0], (sign * rows - 1) / 2)
        assert labels.tolist() == (rows % 4).tolist()


def test_batches_are_the_same_with_two_workers(dataset, monkeypatch):
    here = list(batches(dataset)(1, 5))
    apart = batches(dataset, workers=2)(1, 5)
    found = [next(apart)]
    # From here on this process cannot read: what comes is read elsewhere.
    monkeypatch.setattr(LatentDataset, "batch", None)
    found += apart
    assert len(found) == len(here) == 4
    for one, two in zip(here, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_without_flip_mirrored_latents_are_not_used(dataset):
    """Latents that others wrote have mirrored ones, whether the recipe wants them or not."""
    unit = LatentStatistics(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
    stream = CountStream(len(dataset), batch_size=5, seed=3)
    mirrored, plain = (
        LatentBatches(dataset, unit.normalize, stream, flip=flip) for flip in (True, False)
    )
    assert any((latents < 0).any() for latents, _ in mirrored(0, 4))
    assert all((latents >= 0).all() for latents, _ in plain(0, 4))


def test_a_process_reads_only_its_rows_of_each_batch(dataset, monkeypatch):
    read: list[int] = []
    unwatched = LatentDataset.batch

    def watched(self, indices, flips):
        read.extend(indices.tolist())
        return unwatched(self, indices, flips)

    monkeypatch.setattr(LatentDataset, "batch", watched)
    whole = list(batches(dataset)(1, 4))
    for rank in range(2):
        read.clear()
        positions = positions_of(rank, 2, batch_size=4, accumulate=2)
        stream = CountStream(len(dataset), batch_size=4, seed=3, positions=positions)
        own = LatentBatches(dataset, batches(dataset).normalize, stream)(1, 4)
        for (latents, labels), batch in zip(own, whole, strict=True):
            assert torch.equal(latents, batch[0][positions])
            assert torch.equal(labels, batch[1][positions])
        assert len(read) == 2 * 3
