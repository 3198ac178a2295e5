"""Read the batches of steps, in this process or ahead in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pae_framework.data.image_notes import NOTES
from pae_framework.errors import PaeError

Notes = dict[str, list[str]]

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
    loader: DataLoader[tuple[T | PaeError, Notes]] = DataLoader(
        _Steps(read),
        batch_size=None,  # an item is a whole batch already
        sampler=range(start, stop),
        num_workers=workers,
        worker_init_fn=_relay_notes,
        pin_memory=torch.cuda.is_available(),
    )
    return map(_receive, loader)


def _relay_notes(worker: int) -> None:
    NOTES.relay()


def _receive(sent: tuple[T | PaeError, Notes]) -> T:
    item, notes = sent
    NOTES.update(notes)
    if isinstance(item, PaeError):
        raise item
    return item


class _Steps(Dataset[tuple[T | PaeError, Notes]], Generic[T]):
    """Item k is the batch of step k or an error, which torch would wrap if a worker raised it.

    Notes about the images are sent along.
    """

    def __init__(self, read: Callable[[int], T]):
        self._read = read

    def __getitem__(self, step: int) -> tuple[T | PaeError, Notes]:
        try:
            return self._read(step), NOTES.take()
        except PaeError as error:
            return error, NOTES.take()
