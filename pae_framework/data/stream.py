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
from pae_framework.seeding import Rows, generator


class CountStream:
    """Batches of sample indices by step. A batch may span two epochs; no sample is skipped.

    Legend: B samples of a step, b of them that are given.

    Args:
        length: samples in the data set.
        batch_size: B, samples per step; may exceed ``length``.
        seed: determines order, flips and crops.
        shuffle: give each epoch its own random order; False: 0, 1, 2, ...
        positions: which samples of each batch to give, as by :func:`positions_of`; None: all.

    Raises:
        DataError: the data set is empty.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        positions: Tensor | None = None,
    ):
        if length < 1:
            raise DataError("the training data are empty")
        assert batch_size > 0
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self._chosen = torch.arange(batch_size) if positions is None else positions  # (b,)
        self._cache: dict[tuple[str, int], Tensor] = {}

    def batch(self, step: int) -> Tensor:
        """Sample indices (b,) int64 of a step (0, 1, 2, ...)."""
        epochs, positions = self._positions(step)  # (b,), (b,)
        indices = torch.empty_like(positions)
        for epoch in epochs.unique().tolist():
            within = epochs == epoch  # (b,)
            indices[within] = self._order(epoch)[positions[within]]
        return indices

    def flips(self, step: int) -> Tensor:
        """Whether each sample of the step is mirrored, (b,) bool: even odds per (epoch, sample)."""
        return self._drawn("flip", step) < 0.5

    def offsets(self, step: int, count: int) -> Tensor:
        """Row and column (b, 2) int64 in [0, count) of each sample's crop, per (epoch, sample)."""
        # In float32 the product of the largest number below 1 could be rounded up to `count`.
        return (self._drawn("crop", step, 2).double() * count).long()

    def _drawn(self, purpose: str, step: int, *shape: int) -> Tensor:
        """Uniform numbers (b, *shape) in [0, 1) of the samples of a step, per (epoch, sample)."""
        epochs, _ = self._positions(step)  # (b,), (b,)
        indices = self.batch(step)  # (b,)
        drawn = torch.empty(len(indices), *shape)
        for epoch in epochs.unique().tolist():
            within = epochs == epoch  # (b,)
            of_all = self._cached(purpose, epoch, partial(torch.rand, self.length, *shape))
            drawn[within] = of_all[indices[within]]
        return drawn

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.length)
        return self._cached("order", epoch, partial(torch.randperm, self.length))

    def _cached(self, purpose: str, epoch: int, draw: Callable[..., Tensor]) -> Tensor:
        """Random numbers (length, ...) of an epoch; those of the last two epochs are stored."""
        key = (purpose, epoch)
        if key not in self._cache:
            if len(self._cache) == 6:  # order, flips, crops of the two epochs a batch may span
                del self._cache[next(iter(self._cache))]
            self._cache[key] = draw(generator=generator(self.seed, purpose, epoch))
        return self._cache[key]

    def _positions(self, step: int) -> tuple[Tensor, Tensor]:
        positions = step * self.batch_size + self._chosen
        return positions // self.length, positions % self.length


def positions_of(rank: int, size: int, batch_size: int, accumulate: int) -> Tensor:
    """Positions (b,) in each batch of the samples of process ``rank`` of ``size``.

    The batch is cut into ``accumulate`` micro-batches, and each of these into
    :class:`~pae_framework.seeding.Rows`, one per process. ``tensor.chunk(accumulate)`` of what a
    process reads gives its rows of each micro-batch.

    Args:
        rank: index of the process.
        size: number of processes.
        batch_size: samples per step of all processes; a multiple of ``accumulate``.
        accumulate: micro-batches per step.

    Raises:
        ValueError: a micro-batch has fewer samples than there are processes.
    """
    assert batch_size % accumulate == 0
    micro_batches = torch.arange(batch_size).view(accumulate, -1)
    rows = Rows.of(rank, size, micro_batches.shape[1])
    return micro_batches[:, rows.start : rows.stop].flatten()
