"""Reading the batches of steps, here or in processes that read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


def read_steps(read: Callable[[int], T], start: int, stop: int, workers: int = 0) -> Iterator[T]:
    """Batches of the steps from ``start`` up to, not including, ``stop``, in order.

    Args:
        read: gives the batch of a step, a function of the step alone; with workers it must pickle.
        start: the first step.
        stop: the step after the last.
        workers: processes that read ahead; 0 reads here. The batches are the same.
    """
    if not workers:
        return map(read, range(start, stop))
    loader: DataLoader[T] = DataLoader(
        _Steps(read),
        batch_size=None,  # an item is a whole batch already
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


class _Steps(Dataset[T], Generic[T]):
    """Item k is the batch of step k."""

    def __init__(self, read: Callable[[int], T]):
        self._read = read

    def __getitem__(self, step: int) -> T:
        return self._read(step)
