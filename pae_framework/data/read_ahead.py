"""Reading the batches of steps, here or in processes that read ahead."""

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
        read: gives the batch of a step, a function of the step alone; with workers it must pickle.
        start: the first step.
        stop: the step after the last.
        workers: processes that read ahead; 0 reads here. The batches are the same, and so are this
            project's errors; others come as torch wraps them.
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
    return map(_batch, loader)


@dataclass(frozen=True)
class _Failure:
    """Why a step's batch could not be read. Raised in a worker, the error would reach the user as
    a traceback of torch's that holds another."""

    error: PaeError


def _batch(read: T | _Failure) -> T:
    if isinstance(read, _Failure):
        raise read.error
    return read


class _Steps(Dataset[T | _Failure], Generic[T]):
    """Item k is the batch of step k, or why it could not be read."""

    def __init__(self, read: Callable[[int], T]):
        self._read = read

    def __getitem__(self, step: int) -> T | _Failure:
        try:
            return self._read(step)
        except PaeError as error:
            return _Failure(error)
