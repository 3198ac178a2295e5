"""The order of training samples as a function of the step, so there is no state to save.

Position p of the endless stream belongs to epoch p // length; each epoch has its own permutation.
Step k therefore reads the same samples after interruptions and with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
        shuffle: give each epoch its own random order; False: 0, 1, 2, ...

    Raises:
        DataError: the data set is empty.
    """

    def __init__(self, length: int, batch_size: int, seed: int, shuffle: bool = True):
        if length < 1:
            raise DataError("the training data are empty")
        assert batch_size > 0
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self._cache: dict[tuple[str, int], Tensor] = {}

    def batch(self, step: int) -> Tensor:
        """Sample indices (B,) int64 of a step (0, 1, 2, ...)."""
        epochs, positions = self._positions(step)  # (B,), (B,)
        indices = torch.empty(self.batch_size, dtype=torch.int64)
        for epoch in epochs.unique().tolist():
            within = epochs == epoch  # (B,)
            indices[within] = self._order(epoch)[positions[within]]
        return indices

    def flips(self, step: int) -> Tensor:
        """Whether each sample of the step is mirrored, (B,) bool: even odds per (epoch, sample)."""
        epochs, _ = self._positions(step)  # (B,), (B,)
        indices = self.batch(step)  # (B,)
        flips = torch.empty(self.batch_size, dtype=torch.bool)
        for epoch in epochs.unique().tolist():
            within = epochs == epoch  # (B,)
            coins = self._cached("flip", epoch, partial(torch.rand, self.length))  # of all samples
            flips[within] = coins[indices[within]] < 0.5
        return flips

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.length)
        return self._cached("order", epoch, partial(torch.randperm, self.length))

    def _cached(self, purpose: str, epoch: int, draw: Callable[..., Tensor]) -> Tensor:
        """Random numbers (length,) of an epoch; those of the last two epochs are stored."""
        key = (purpose, epoch)
        if key not in self._cache:
            if len(self._cache) == 4:  # order and flips of the two epochs that a batch may span
                del self._cache[next(iter(self._cache))]
            self._cache[key] = draw(generator=generator(self.seed, purpose, epoch))
        return self._cache[key]

    def _positions(self, step: int) -> tuple[Tensor, Tensor]:
        positions = step * self.batch_size + torch.arange(self.batch_size)
        return positions // self.length, positions % self.length
