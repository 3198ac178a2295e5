"""Batches of latents by step: what generators train on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from pae_framework.data.latent_dataset import LatentDataset
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.statistics import LatentStatistics
from pae_framework.data.stream import CountStream


@dataclass(frozen=True)
class LatentBatches:
    """Normalised latents by step: ``batches(start, stop)`` iterates over those steps.

    ``stream`` says which latents, and which of them of the mirrored image, each step gets;
    ``workers`` processes read ahead, 0 reads here. The batches are the same. Without ``flip`` no
    latent of a mirrored image is taken.
    """

    dataset: LatentDataset
    statistics: LatentStatistics
    stream: CountStream
    workers: int = 0
    flip: bool = True

    def __call__(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Latents (B, C, h, w) float32 and labels (B,) of steps from ``start`` to ``stop``."""
        return read_steps(self.read, start, stop, self.workers)

    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of one step."""
        flips = self.stream.flips(step) if self.flip else None
        latents, labels = self.dataset.batch(self.stream.batch(step), flips)
        return self.statistics.normalize(latents), labels
