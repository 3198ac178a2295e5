"""Markers: files that take the place of locks where the file system has none.

A marker names the process that holds a folder, which touches it every few seconds. The marker of a
process of this machine that ended is removed. One of another machine is believed while it is
renewed. If it is not for :data:`SILENT_SECONDS`, it is taken over; the time is that of the process
that watches it, so clocks of different machines are never compared.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from pae_framework.errors import RunError
from pae_framework.runs.holder import Holder, read_holder

POLL_SECONDS = 1.0
"""Interval between two looks at the marker of another process."""
RENEW_SECONDS = 10.0
"""Interval in which a holder touches its marker."""
SILENT_SECONDS = 120.0
"""A process that does not touch its marker for so long has ended; network mounts delay news."""

Waiting = Callable[[str], None]
"""Called once with the process that is waited for."""

logger = logging.getLogger(__name__)


def marked_by(marker: Path) -> Holder | None:
    """The process that a marker names; None if there is no marker, or its process ended."""
    holder = read_holder(marker)
    return None if holder is None or holder.ended else holder


def mark(marker: Path, waiting: Waiting | None) -> Callable[[], None]:
    """Create the marker; returns what removes it.

    Args:
        marker: the file.
        waiting: called before waiting for its holder; None: do not wait for a process that lives.

    Raises:
        RunError: another process holds the marker, and ``waiting`` is None.
    """
    own, watch, told = Holder.this_process(renewed=True), _Watch(marker), False
    while not _create(marker, own):
        holder = marked_by(marker)
        if holder is None or watch.is_silent(holder):
            if holder is not None:
                logger.warning(
                    "%s has not renewed %s for %g s: it is taken over",
                    *(holder, marker, SILENT_SECONDS),
                )
            _remove(marker, holder)
            continue
        if waiting is None and not watch.undecided:
            raise RunError(
                f"{holder} is working on {marker.parent}; wait until it ends, or stop it. If no "
                f"such process runs, delete {marker}"
            )
        if not told:
            told = True
            if waiting is not None:
                waiting(str(holder))
            else:
                logger.warning(
                    "%s is working on %s, or was killed; watching it for up to %g s",
                    *(holder, marker.parent, SILENT_SECONDS),
                )
        time.sleep(POLL_SECONDS)
    _explain_markers()
    renewal = _Renewal(marker, own)
    renewal.start()
    return renewal.end


class _Watch:
    """Whether the holder of a marker gives signs of life, by the clock of this process."""

    def __init__(self, marker: Path):
        self._marker = marker
        self._seen: tuple[Holder, int] | None = None
        self._since = 0.0
        self.undecided = False
        """Whether a longer look will tell if the holder lives."""

    def is_silent(self, holder: Holder) -> bool:
        """Look at the marker; whether its holder must have ended."""
        try:
            sign = (holder, self._marker.stat().st_mtime_ns)
        except OSError:
            return False
        now = time.monotonic()
        if sign != self._seen:
            is_first = self._seen is None or self._seen[0] != holder
            self.undecided = is_first and holder.renewed and not holder.here
            self._seen, self._since = sign, now
        return holder.renewed and not holder.here and now - self._since >= SILENT_SECONDS


class _Renewal(threading.Thread):
    """Touches the marker of this process until :meth:`end`.

    If another process took the marker over, because this one was suspended for long, this one ends
    at once: it must not write into a folder that it no longer holds.
    """

    def __init__(self, marker: Path, own: Holder):
        super().__init__(name=f"renewal of {marker}", daemon=True)
        self._marker, self._own = marker, own
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with suppress(OSError):  # perhaps the next time
                self._renew()

    def _renew(self) -> None:
        holder = read_holder(self._marker)
        if holder is None:
            _create(self._marker, self._own)
        elif holder.process is not None and not holder.same_process(self._own):
            logger.error("%s was taken over by %s: this process ends", self._marker, holder)
            os._exit(RunError.exit_code)
        else:
            os.utime(self._marker)

    def end(self) -> None:
        self._ended.set()
        self.join()
        with suppress(OSError):
            _remove(self._marker, self._own)


@cache
def _explain_markers() -> None:
    """Say it once in a process, not at every stage."""
    logger.warning("the file system has no locks; files .lock.json mark what is in use instead")


def _create(marker: Path, own: Holder) -> bool:
    """Create the marker with its content in one step; False if there is one."""
    unfinished = marker.with_name(f".{marker.name}.{os.getpid()}.new")
    try:
        unfinished.write_text(own.text(), encoding="utf-8")
        try:
            os.link(unfinished, marker)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            with suppress(FileExistsError), marker.open("x", encoding="utf-8") as file:
                file.write(own.text())
                return True
            return False
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def _remove(marker: Path, holder: Holder | None) -> None:
    """Remove the marker if it still is that of ``holder``; None: of a process that ended."""
    found = read_holder(marker)
    if found is not None and (found.ended if holder is None else found.same_process(holder)):
        marker.unlink(missing_ok=True)
