"""Read the batches of steps, in this process or ahead in worker processes."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import arbitrary_address  # type: ignore[attr-defined]
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pae_framework.data.image_notes import NOTES
from pae_framework.errors import PaeError
from pae_framework.file_plugins import Portable
from pae_framework.system.stopping import stop_signals_blocked

Notes = dict[str, list[str]]

K = TypeVar("K")
T = TypeVar("T")

_LONGEST_ADDRESS = 107
"""Bytes that the address of a Unix socket may have."""

logger = logging.getLogger(__name__)


def read_steps(read: Callable[[int], T], start: int, stop: int, workers: int = 0) -> Iterator[T]:
    """Read the batches of the steps from ``start`` up to, not including, ``stop``, in order.

    As :func:`read_ahead` of these steps.
    """
    return read_ahead(read, range(start, stop), workers)


def read_ahead(read: Callable[[K], T], keys: Iterable[K], workers: int = 0) -> Iterator[T]:
    """Read the batches of some keys, in order.

    Workers send batches through shared memory, or through pipes if there is too little of it. Where
    no worker can be started, this process reads. The batches are always the same.

    Args:
        read: returns the batch of a key, as a function of the key. Must pickle if there are
            workers.
        keys: a key is asked for, in this process, when a worker can read its batch: two for each
            worker are ahead. They must pickle.
        workers: processes that read ahead; 0: read in this one. Errors of this project are the
            same; torch wraps other errors. See :func:`worker_death` for a worker that dies.
    """
    if not workers or not processes_work(8 + 8 * workers):
        return map(read, keys)
    loader: DataLoader[tuple[Any, Notes]] = DataLoader(
        _Steps(read),
        batch_size=None,  # an item is a whole batch already
        collate_fn=_unchanged,
        sampler=keys,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin,
    )
    try:
        with stop_signals_blocked():  # workers ignore the signals that ask this process to stop
            loaded = iter(loader)
    except OSError as error:
        _explain_one_process(error)
        return map(read, keys)
    return map(_Receiver().receive, _ending_workers(loaded))


def _ending_workers(loaded: Iterator[T]) -> Iterator[T]:
    """Yield what the workers of a loader's iterator load, then end them."""
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


def processes_work(locks: int = 16) -> bool:
    """Whether this machine gives processes the locks to work together; logs why not."""
    try:
        [multiprocessing.Lock() for _ in range(locks)]
    except OSError as error:
        _explain_one_process(error)
        return False
    return True


def _explain_one_process(error: OSError) -> None:
    logger.warning(
        "no other processes can be started (%s; their locks are in /dev/shm): this one works alone",
        error.strerror or error,
    )


def worker_death(error: BaseException) -> str | None:
    """If the error says that a worker of :func:`read_steps` died: how it died; else None.

    The error may be raised in any code of the main process, between two batches too.
    """
    found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(error))
    if not isinstance(error, RuntimeError) or found is None:
        return None
    how = found[2].partition(". ")[0].rstrip(".").replace("is killed", "was killed")
    return f"a process that reads ahead (process {found[1]}) {how}"


class _Receiver:
    """Unpacks what workers send, in the main process."""

    def __init__(self) -> None:
        self._explained = False

    def receive(self, sent: tuple[Any, Notes]) -> Any:
        item, notes = sent
        NOTES.update(notes)
        if isinstance(item, PaeError):
            raise item
        if not isinstance(item, _Packed):
            return item
        if not self._explained:
            logger.warning(
                "shared memory is too small for batches of %d MiB: workers send them through "
                "pipes, which is slower; enlarge /dev/shm (docker run --shm-size)",
                -(-item.size // (1 << 20)),
            )
            self._explained = True
        return item.unpack()


class _Steps(Dataset[tuple[Any, Notes]], Generic[K, T]):
    """Item k is the batch of key k or an error, which torch would wrap if a worker raised it.

    A batch is in shared memory, or packed once there was too little of it. The queue between the
    processes would move it there itself, but if that fails, the queue loses it and waits for ever.
    Notes about the images are sent along.
    """

    def __init__(self, read: Callable[[K], T]):
        self._read = read
        self._can_share: bool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers that are not forked, which lack the plugin files of this process."""
        return _steps, (Portable(self._read),)

    def __getitem__(self, key: K) -> tuple[Any, Notes]:
        try:
            batch = self._read(key)
        except PaeError as error:
            return error, NOTES.take()
        return self._sendable(batch), NOTES.take()

    def _sendable(self, batch: T) -> Any:
        if self._can_share is None:
            self._can_share = _sockets_work()
        if self._can_share:
            try:
                _share(batch)
            except RuntimeError:  # torch has no class of its own for it
                self._can_share = False
        return batch if self._can_share else _Packed.of(batch)


def _steps(read: Portable[Callable[[K], T]]) -> _Steps[K, T]:
    return _Steps(read.value)


def _share(batch: Any) -> None:
    """Move the tensors of a batch into shared memory."""
    if isinstance(batch, Tensor):
        batch.share_memory_()
    elif isinstance(batch, tuple | list):
        for part in batch:
            _share(part)


def _sockets_work() -> bool:
    """Whether a process can hand over shared memory, which takes a socket in a temporary folder."""
    with suppress(OSError):
        return len(os.fsencode(arbitrary_address("AF_UNIX"))) <= _LONGEST_ADDRESS
    return False


@dataclass(frozen=True)
class _Packed:
    """A batch whose tensors are sent as plain bytes."""

    content: Any
    size: int

    @classmethod
    def of(cls, batch: Any) -> _Packed:
        content = _pack(batch)
        parts = content if isinstance(content, tuple) else (content,)
        return cls(content, sum(p.data.nbytes for p in parts if isinstance(p, _PackedTensor)))

    def unpack(self) -> Any:
        return _unpack(self.content)


@dataclass(frozen=True)
class _PackedTensor:
    data: np.ndarray[Any, Any]
    dtype: torch.dtype
    shape: torch.Size

    def unpack(self) -> Tensor:
        return torch.from_numpy(self.data).view(self.dtype).reshape(self.shape)


def _pack(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        flat = batch.contiguous().flatten().view(torch.uint8)  # NumPy lacks bfloat16
        return _PackedTensor(flat.numpy(), batch.dtype, batch.shape)
    return tuple(map(_pack, batch)) if isinstance(batch, tuple) else batch


def _unpack(content: Any) -> Any:
    if isinstance(content, _PackedTensor):
        return content.unpack()
    return tuple(map(_unpack, content)) if isinstance(content, tuple) else content


def _unchanged(batch: T) -> T:
    return batch


def _begin(number: int) -> None:
    NOTES.relay()
