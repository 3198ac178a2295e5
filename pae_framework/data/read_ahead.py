"""Read the batches of steps, in this process or ahead in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pae_framework.errors import PaeError

T = TypeVar("T")


def read_steps(read: Callable[[int], T], start: int, stop: int, workers: int = 0) -> Iterator[T]:
    """Read the batches of the steps from ``start`` up to, not including, ``stop``, in order.

    Args:
        read: returns the batch of a step, as a function of the step. Must pickle if there are
            workers.
        start: the first step.
        stop: the step after the last.
        workers: processes that read ahead; 0: read in this one. The batches are the same, and so
            are errors of this project; torch wraps other errors.
    """
    if not workers:
        return map(read, range(start, stop))
    loader: DataLoader[T | PaeError] = DataLoader(
        _Steps(read),
        batch_size=None,  # an item is a whole batch already
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    return map(_raise_error, loader)


def _raise_error(item: T | PaeError) -> T:
    if isinstance(item, PaeError):
        raise item
    return item


class _Steps(Dataset[T | PaeError], Generic[T]):
    """Item k is the batch of step k or an error, which torch would wrap if a worker raised it."""

    def __init__(self, read: Callable[[int], T]):
        self._read = read

    def __getitem__(self, step: int) -> T | PaeError:
        try:
            return self._read(step)
        except PaeError as error:
            return error
