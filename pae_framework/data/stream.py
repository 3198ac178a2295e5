"""The order of training samples as a function of the step, so there is no state to save.

Position p of the endless stream belongs to epoch p // length; each epoch has its own permutation.
Step k therefore reads the same samples after interruptions and with any number of workers.
"""

from __future__ import annotations

from functools import lru_cache

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

    def batch(self, step: int) -> Tensor:
        """Sample indices (B,) int64 of a step (0, 1, 2, ...)."""
        epochs, positions = self._positions(step)  # (B,), (B,)
        indices = torch.empty(self.batch_size, dtype=torch.int64)
        for epoch in epochs.unique().tolist():
            within = epochs == epoch  # (B,)
            order = epoch_order(self.length, self.seed, epoch) if self.shuffle else None
            positions_within = positions[within]
            indices[within] = positions_within if order is None else order[positions_within]
        return indices

    def flips(self, step: int) -> Tensor:
        """Whether each sample of the step is mirrored, (B,) bool: even odds per (epoch, sample)."""
        epochs, _ = self._positions(step)  # (B,), (B,)
        indices = self.batch(step)  # (B,)
        flips = torch.empty(self.batch_size, dtype=torch.bool)
        for epoch in epochs.unique().tolist():
            within = epochs == epoch  # (B,)
            flips[within] = epoch_flips(self.length, self.seed, epoch)[indices[within]]
        return flips

    def _positions(self, step: int) -> tuple[Tensor, Tensor]:
        positions = step * self.batch_size + torch.arange(self.batch_size)
        return positions // self.length, positions % self.length


# A batch may span two epochs. Two streams may be read in turn.
@lru_cache(maxsize=4)
def epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    """Permutation (length,) of an epoch. Cached: do not modify it."""
    return torch.randperm(length, generator=generator(seed, "order", epoch))


@lru_cache(maxsize=4)
def epoch_flips(length: int, seed: int, epoch: int) -> Tensor:
    """Whether each sample of an epoch is mirrored, (length,) bool. Cached: do not modify it."""
    return torch.rand(length, generator=generator(seed, "flip", epoch)) < 0.5
