"""The order of training samples as a function of the step: no state to save, none to lose.

Position p of the endless stream belongs to epoch p // length; each epoch is a permutation of its
own. So step k reads the same samples whether a run came there in one go, after ten interruptions or
with another number of loader processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.seeding import generator


class CountStream:
    """Batches of sample indices by step. Batches may straddle epochs; no sample is left out.

    Args:
        length: samples in the data set.
        batch_size: B, samples per step; may exceed ``length``.
        seed: order and flips are functions of it.
        shuffle: whether each epoch has its own order; else 0, 1, 2, ... every time.

    Raises:
        DataError: the data set is empty.
    """

    def __init__(self, length: int, batch_size: int, seed: int, shuffle: bool = True):
        if length < 1:
            raise DataError("the training data hold no sample; at least one is needed")
        assert batch_size > 0
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self._orders: dict[int, Tensor] = {}
        self._coins: dict[int, Tensor] = {}

    def batch(self, step: int) -> Tensor:
        """Sample indices (B,) int64 of a step (0, 1, 2, ...)."""
        epochs, places = self._positions(step)
        indices = torch.empty(self.batch_size, dtype=torch.int64)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            indices[here] = self._order(epoch)[places[here]]
        return indices

    def flips(self, step: int) -> Tensor:
        """Whether each sample of the step is mirrored, (B,) bool: even odds per (epoch, sample)."""
        epochs, _ = self._positions(step)
        indices = self.batch(step)
        flips = torch.empty(self.batch_size, dtype=torch.bool)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            flips[here] = self._coin(epoch)[indices[here]]
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

    def _coin(self, epoch: int) -> Tensor:
        """Flip of every sample in the epoch, (length,) bool, by sample index."""
        if epoch not in self._coins:
            random = generator(self.seed, "flip", epoch)
            _remember(self._coins, epoch, torch.rand(self.length, generator=random) < 0.5)
        return self._coins[epoch]


def _remember(cache: dict[int, Tensor], epoch: int, value: Tensor) -> None:
    """Keep this epoch and the one before it: a batch that straddles two needs both."""
    for old in [known for known in cache if known not in (epoch - 1, epoch + 1)]:
        del cache[old]
    cache[epoch] = value
