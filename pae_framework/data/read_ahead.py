"""Read the batches of steps, in this process or ahead in worker processes."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pae_framework.errors import PaeError
from pae_framework.stopping import stop_signals_blocked

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
    return map(_raise_error, _in_workers(loader))


def _in_workers(loader: DataLoader[T]) -> Iterator[T]:
    """Yield what the workers load. They ignore the signals that ask the main process to stop."""
    with stop_signals_blocked():
        loaded = iter(loader)
    end = partial(_end_workers, loaded)
    atexit.register(end)  # Python would wait at its end for workers that are still alive
    try:
        yield from loaded
    finally:
        atexit.unregister(end)
        end()


def _end_workers(loaded: Any) -> None:
    """End the worker processes of a loader's iterator. torch gives up on one that hangs."""
    workers = loaded._workers
    loaded._shutdown_workers()
    for worker in workers:
        worker.kill()
        worker.join()


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
