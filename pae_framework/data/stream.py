"""The order of training samples as a function of the step, so there is no state to save.

Position p of the endless stream belongs to epoch p // length; each epoch has its own permutation.
Step k therefore reads the same samples after any interruptions and with any number of workers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.seeding import generator


class CountStream:
    """Batches of sample indices by step. A batch may span two epochs; no sample is skipped.

    Args:
        length: samples in the data set.
        batch_size: B, samples per step; may exceed ``length``.
        seed: determines order and flips.
        shuffle: whether each epoch has its own random order; else 0, 1, 2, ...

    Raises:
        DataError: the data set is empty.
    """

    def __init__(self, length: int, batch_size: int, seed: int, shuffle: bool = True):
        if length < 1:
            raise DataError("the training data are empty; at least one sample is needed")
        assert batch_size > 0
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self._orders: dict[int, Tensor] = {}
        self._flips: dict[int, Tensor] = {}

    def batch(self, step: int) -> Tensor:
        """Sample indices (B,) int64 of a step (0, 1, 2, ...)."""
        epochs, positions = self._positions(step)  # (B,), (B,)
        indices = torch.empty(self.batch_size, dtype=torch.int64)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch  # (B,)
            indices[here] = self._order(epoch)[positions[here]]
        return indices

    def flips(self, step: int) -> Tensor:
        """Whether each sample of the step is mirrored, (B,) bool: even odds per (epoch, sample)."""
        epochs, _ = self._positions(step)
        indices = self.batch(step)
        flips = torch.empty(self.batch_size, dtype=torch.bool)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            flips[here] = self._epoch_flips(epoch)[indices[here]]
        return flips

    def _positions(self, step: int) -> tuple[Tensor, Tensor]:
        positions = step * self.batch_size + torch.arange(self.batch_size)
        return positions // self.length, positions % self.length

    def _order(self, epoch: int) -> Tensor:
        """Permutation of the epoch, (length,)."""
        if not self.shuffle:
            return torch.arange(self.length)
        if epoch not in self._orders:
            random = generator(self.seed, "order", epoch)
            _remember(self._orders, epoch, torch.randperm(self.length, generator=random))
        return self._orders[epoch]

    def _epoch_flips(self, epoch: int) -> Tensor:
        """Flip of every sample in the epoch, (length,) bool, by sample index."""
        if epoch not in self._flips:
            random = generator(self.seed, "flip", epoch)
            _remember(self._flips, epoch, torch.rand(self.length, generator=random) < 0.5)
        return self._flips[epoch]


def _remember(cache: dict[int, Tensor], epoch: int, value: Tensor) -> None:
    """Cache the last two epochs: a batch that spans two needs both."""
    for old in [known for known in cache if known not in (epoch - 1, epoch + 1)]:
        del cache[old]
    cache[epoch] = value
