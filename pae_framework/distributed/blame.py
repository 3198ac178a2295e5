"""Which failure ended a run: the first real one, rather than its consequences."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from pae_framework.distributed.failure import Failure, is_consequence
from pae_framework.distributed.link import Link

REASON_SECONDS = 5.0
"""How long a process that lost another waits for that one's reason."""
SILENT_SECONDS = 120.0
"""How long a process may not beat. Code that holds Python's lock can delay a beat."""
_POLL_SECONDS = 0.1
_SHOWN = 4
"""Errors of processes that lost another, in a message."""


def first_failure(error: BaseException, link: Link) -> Failure:
    """The failure that ended the run, after this process met an error. Tells the others.

    An error of communication says that another process failed: that one's own word is awaited. If
    it does not come, the processes that met no error are those that ended or hang. One that beats
    on was not connected to the one that ended.

    Raises:
        LostContactError: rank 0 has ended.
    """
    if is_consequence(error):
        link.post(_cut_off(link.rank), Failure.of(error, link.rank))
        beaten = [_beaten(rank, link) for rank in range(link.size)]
        deadline = time.monotonic() + REASON_SECONDS
        while (failure := link.failure()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        failure = failure or _silent_failure(error, link, beaten)
    else:
        failure = Failure.of(error, link.rank)
    link.fail(failure)
    return link.failure() or failure


def _silent_failure(error: BaseException, link: Link, beaten: Sequence[int]) -> Failure:
    """The failure of the first process that neither said why it failed nor lost another one.

    Args:
        error: what this process met.
        link: to the others.
        beaten: how often each process had beaten when this one met its error.
    """
    quiet = [rank for rank in range(link.size) if not link.has(_cut_off(rank))]
    # Rank 0 does not beat, but keeps the messages: it lives.
    ended = [rank for rank in quiet if rank and _beaten(rank, link) == beaten[rank]]
    if quiet:
        failure = _no_answer((ended or quiet)[0], link)
        return replace(failure, message=f"{failure.message}; {_errors_of_cut_off(link)}")
    own, met = Failure.of(error, link.rank), _errors_of_cut_off(link)
    return Failure(own.rank, own.host, f"lost contact with the other processes: {met}")


def _errors_of_cut_off(link: Link) -> str:
    """What the processes met that lost another: one of these errors may be the reason."""
    ranks = [rank for rank in range(link.size) if link.has(_cut_off(rank))]
    met = [link.read(_cut_off(rank)) for rank in ranks[:_SHOWN]]
    more = f"; {len(ranks) - _SHOWN} more processes too" if len(ranks) > _SHOWN else ""
    return "; ".join(f"rank {x.rank} on {x.host} met: {x.message}" for x in met) + more


def _no_answer(rank: int, link: Link) -> Failure:
    host = link.read(seen_key(rank)).host if link.has(seen_key(rank)) else "unknown host"
    message = "does not answer: it was killed, hangs or is too slow"
    return Failure(rank, host, message, is_silent=True)


def beat(link: Link) -> None:
    """Say that this process lives; now and then."""
    link.add(_beats(link.rank), 1)


class Pulses:
    """Notices processes that ended without a word, on machines that rank 0 cannot see.

    Args:
        link: of rank 0.
    """

    def __init__(self, link: Link):
        self._link = link
        self._last: dict[int, tuple[int, float]] = {}

    def silent(self, now: float) -> Failure | None:
        """The failure of a process that has not beaten for long; None if all beat.

        Args:
            now: this process' monotonic clock, in seconds.
        """
        for rank in range(1, self._link.size):
            count = _beaten(rank, self._link)
            before, since = self._last.get(rank, (0, now))
            if count != before or count == 0:  # 0: it has not begun
                self._last[rank] = count, now
            elif now - since > SILENT_SECONDS:
                return _no_answer(rank, self._link)
        return None


def _beaten(rank: int, link: Link) -> int:
    """How often a process has beaten."""
    return link.add(_beats(rank), 0)


def _beats(rank: int) -> str:
    return f"beats/{rank}"


def seen_key(rank: int) -> str:
    """Key of what a process sees of the world when it starts."""
    return f"seen/{rank}"


def _cut_off(rank: int) -> str:
    return f"cut off/{rank}"
