"""Images read ahead for a process that gets their batches one by one, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from pae_framework.contracts import DataSource
from pae_framework.data.images import read_images
from pae_framework.data.read_ahead import read_ahead
from pae_framework.evaluation.shared_batches import BATCH

ImagesAndLabels = tuple[Tensor, Tensor]


class OrderedReads:
    """Reads batches of images by their indices; workers read those that come next.

    A process gets every ``step``-th batch; it may begin with any.

    Args:
        source: gives the images.
        indices: gives all indices, of which :class:`SharedBatches` makes batches.
        step: number of processes.
        workers: gives the number of processes that read ahead.
    """

    def __init__(
        self,
        source: Callable[[], DataSource],
        indices: Callable[[], Sequence[int]],
        step: int,
        workers: Callable[[], int],
    ):
        self._source, self._indices = source, indices
        self._step, self._workers = step, workers
        self._next: deque[list[int]] = deque()
        self._reads: Iterator[ImagesAndLabels] = iter(())

    def __call__(self, batch: Tensor) -> ImagesAndLabels:
        """Images (B, 3, S, S) uint8 and labels (B,) at indices (B,).

        Raises:
            DataError: an image cannot be read.
        """
        if not self._next or self._next[0] != batch.tolist():
            self._start(batch.tolist())
        self._next.popleft()
        return next(self._reads)

    def _start(self, first: list[int]) -> None:
        batches = [part.tolist() for part in torch.tensor(self._indices()).split(BATCH)]
        start = batches.index(first)
        self._next = deque(batches[start :: self._step])
        read = partial(read_images, self._source())
        self._reads = read_ahead(read, list(self._next), self._workers())
