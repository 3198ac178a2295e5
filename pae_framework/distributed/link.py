"""Messages between the processes of a run, through a key-value store that rank 0 keeps.

Waiting for a message polls the store. Unlike a collective it has no time limit, and it ends at once
if a process fails. Messages are pickled; they come from this run's own processes.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from pae_framework.distributed.failure import Failure, LostContactError, RankError

logger = logging.getLogger(__name__)

LONGEST_POLL = 0.1
"""Seconds between two looks into the store, once a wait has lasted."""
CONNECT_SECONDS = 300
"""How long a process waits for the store of rank 0."""
REMIND_SECONDS = 60.0
"""A wait that lasts longer is logged, once, so that it does not look like a hang."""
_FAILURE = "failure"
_LEFT = "left"


class Link:
    """This process' access to the messages.

    Args:
        store: kept by rank 0.
        rank: of this process.
        size: number of processes.
    """

    def __init__(self, store: dist.Store, rank: int, size: int):
        self.store, self.rank, self.size = dist.PrefixStore("pae", store), rank, size

    def second_client(self) -> dist.Store:
        """The same store for others, whose waits do not hold up the messages. torch >= 2.7."""
        return self.store.clone() if hasattr(self.store, "clone") else self.store

    def post(self, key: str, message: object = None) -> None:
        """Send a message, once for a key."""
        with _contact():
            self.store.set(key, pickle.dumps(message))  # type: ignore[arg-type]

    def has(self, key: str) -> bool:
        """Whether a message was sent."""
        with _contact():
            return bool(self.store.check([key]))

    def read(self, key: str) -> Any:
        """A message that was sent."""
        with _contact():
            return pickle.loads(self.store.get(key))

    def add(self, key: str, amount: int) -> int:
        """Add to a counter, which starts at 0; returns its value."""
        with _contact():
            return int(self.store.add(key, amount))

    def wait(
        self, key: str, waits_for: str = "rank 0", meanwhile: Callable[[], None] | None = None
    ) -> Any:
        """Wait for a message, however long.

        Args:
            key: of the message.
            waits_for: who or what sends it, for the log.
            meanwhile: called now and then.

        Raises:
            RankError: another process failed.
            LostContactError: rank 0 has ended.
        """
        self.wait_until(lambda: self.has(key), lambda: waits_for, meanwhile)
        return self.read(key)

    def wait_until(
        self,
        condition: Callable[[], bool],
        waits_for: Callable[[], str],
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """The same for any condition on the store."""
        start, is_logged, pause = time.monotonic(), False, 0.001
        while not condition():
            self.raise_failure()
            if meanwhile is not None:
                meanwhile()
            if not is_logged and time.monotonic() - start > REMIND_SECONDS:
                logger.warning("rank %d waits for %s", self.rank, waits_for())
                is_logged = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)

    def leave(self) -> None:
        """Say that this process sends and reads no more; see :meth:`wait_for_leaving`."""
        self.add(_LEFT, 1)

    def wait_for_leaving(self, seconds: float) -> None:
        """In rank 0, keep the store until the others have left; after some seconds in any case."""
        deadline = time.monotonic() + seconds
        while self.add(_LEFT, 0) < self.size - 1 and time.monotonic() < deadline:
            time.sleep(LONGEST_POLL)

    def fail(self, failure: Failure) -> None:
        """Tell the others that a process failed. Only the first failure counts."""
        with _contact():
            if self.store.add(f"{_FAILURE}/count", 1) == 1:
                self.store.set(_FAILURE, pickle.dumps(failure))  # type: ignore[arg-type]

    def failure(self) -> Failure | None:
        """The first failure of a process; None if there is none."""
        if not self.has(_FAILURE):
            return None
        found = self.read(_FAILURE)
        assert isinstance(found, Failure)
        return found

    def raise_failure(self) -> None:
        """Raise the failure of another process, if one failed.

        Raises:
            RankError: names the process.
        """
        if (failure := self.failure()) is not None:
            raise RankError(failure)


@contextmanager
def _contact() -> Iterator[None]:
    """Errors of the store mean that rank 0, which keeps it, has ended."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:  # torch's errors are RuntimeErrors
        raise LostContactError(f"rank 0 cannot be reached: {error}") from error


def own_store() -> dist.TCPStore:
    """A store on this machine for processes that this one starts, on a free port."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def launchers_store() -> dist.Store:
    """The store at the address that the launcher gave to all processes; rank 0 opens it.

    Raises:
        LostContactError: the address does not resolve, its port is in use, or nobody answers.
    """
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        socket.getaddrinfo(host, None)  # torch would try again and again
        timeout = timedelta(seconds=CONNECT_SECONDS)
        store, _, _ = next(iter(dist.rendezvous("env://", timeout=timeout)))
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise LostContactError(
            f"the processes cannot meet at MASTER_ADDR={host}, MASTER_PORT={port}, where rank 0 "
            f"listens: {reason}"
        ) from error
    return store
