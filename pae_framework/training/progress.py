"""Progress of a stage: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pae_framework.errors import WriteError
from pae_framework.system.console import PlainConsole
from pae_framework.system.durations import format_seconds
from pae_framework.system.printing import printable

RECORD_SECONDS = 10.0
"""Seconds between two records of the progress."""


class ProgressLine:
    """Shows the progress of one stage. Use as a context manager.

    Args:
        title: name of the stage.
        total: number of steps or images.
        done: how many of them are done at the start.
        console: where to show it, and how often; None: standard error.
        update_record: called with the progress at the start and the end, and whenever it is shown.
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        console: PlainConsole | None = None,
        update_record: Callable[..., None] | None = None,
    ):
        self.title, self.total, self._first = printable(title), total, done
        self._done, self._recorded = done, -1
        self._console = console or PlainConsole(stderr=True)
        self._update_record = update_record
        self._start = time.monotonic()
        self._last_shown = self._last_recorded = self._start
        self._bar: Progress | None = None
        if self._console.is_terminal and self._console.progress_seconds is not None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}", markup=False),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(self.title, total=total, completed=done, note="")

    def __enter__(self) -> ProgressLine:
        self._record()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._bar:
            self._bar.stop()
        with suppress(WriteError) if error else nullcontext():  # an earlier error matters more
            self._record()

    def update(self, done: int, note: str = "", record: bool = False) -> None:
        """Show that ``done`` of ``total`` are done, with a note; ``record``: now in any case."""
        completes = done >= self.total and self._done < self.total
        self._done = done
        note = printable(note)
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
        now = time.monotonic()
        if record or completes or now - self._last_recorded >= RECORD_SECONDS:
            self._last_recorded = now
            self._record()
        seconds = self._console.progress_seconds
        if self._bar or seconds is None:
            return
        if completes or now - self._last_shown >= seconds:
            self._last_shown = now
            rate = (done - self._first) / max(1e-9, now - self._start)
            left = format_seconds((self.total - done) / rate) if rate > 0 else "?"
            line = f"{self.title} {done}/{self.total}  {note}  left {left}"
            self._console.print(line)

    def _record(self) -> None:
        if self._update_record and self._recorded != self._done:
            self._update_record(progress={"done": self._done, "total": self.total})
            self._recorded = self._done
