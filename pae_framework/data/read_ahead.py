"""Read the batches of steps, in this process or ahead in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pae_framework.errors import PaeError

T = TypeVar("T")


def read_steps(read: Callable[[int], T], start: int, stop: int, workers: int = 0) -> Iterator[T]:
    """Batches of the steps from ``start`` up to, not including, ``stop``, in order.

    Args:
        read: returns the batch of a step; depends on the step alone. Must pickle if there are
            workers.
        start: the first step.
        stop: the step after the last.
        workers: processes that read ahead; 0: read in this one. Batches and this project's errors
            are the same; torch wraps other errors.
    """
    if not workers:
        return map(read, range(start, stop))
    loader: DataLoader[T | _Failure] = DataLoader(
        _Steps(read),
        batch_size=None,  # an item is a whole batch already
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    return map(_unwrap, loader)


@dataclass(frozen=True)
class _Failure:
    """Why a step's batch could not be read. torch would wrap an error raised in a worker."""

    error: PaeError


def _unwrap(item: T | _Failure) -> T:
    if isinstance(item, _Failure):
        raise item.error
    return item


class _Steps(Dataset[T | _Failure], Generic[T]):
    """Item k is the batch of step k, or the reason it could not be read."""

    def __init__(self, read: Callable[[int], T]):
        self._read = read

    def __getitem__(self, step: int) -> T | _Failure:
        try:
            return self._read(step)
        except PaeError as error:
            return _Failure(error)
