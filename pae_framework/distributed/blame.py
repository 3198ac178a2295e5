"""Which failure ended a run: the first real one, rather than its consequences."""

from __future__ import annotations

import time

from pae_framework.distributed.failure import Failure, is_consequence
from pae_framework.distributed.link import Link

REASON_SECONDS = 5.0
"""How long a process that lost another waits for that one's reason."""
_POLL_SECONDS = 0.1


def first_failure(error: BaseException, link: Link) -> Failure:
    """The failure that ended the run, after this process met an error. Tells the others.

    An error of communication says that another process failed: that one's own word is awaited. If
    it does not come, the processes that met no error are those that ended or hang.

    Raises:
        LostContactError: rank 0 has ended.
    """
    if is_consequence(error):
        link.post(_cut_off(link.rank))
        deadline = time.monotonic() + REASON_SECONDS
        while (failure := link.failure()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        failure = failure or _silent_failure(error, link)
    else:
        failure = Failure.of(error, link.rank)
    link.fail(failure)
    return link.failure() or failure


def _silent_failure(error: BaseException, link: Link) -> Failure:
    """The failure of the first process that neither said why it failed nor lost another one."""
    for rank in range(link.size):
        if not link.has(_cut_off(rank)):
            host = link.read(seen_key(rank)).host if link.has(seen_key(rank)) else "unknown host"
            return Failure(rank, host, "does not answer: it was killed, hangs or is too slow")
    own = Failure.of(error, link.rank)
    return Failure(own.rank, own.host, f"lost contact with the other processes: {own.message}")


def seen_key(rank: int) -> str:
    """Key of what a process sees of the world when it starts."""
    return f"seen/{rank}"


def _cut_off(rank: int) -> str:
    return f"cut off/{rank}"
