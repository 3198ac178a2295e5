"""Progress of a stage: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from pae_framework.errors import WriteError
from pae_framework.system.console import PlainConsole
from pae_framework.system.durations import format_clock, format_seconds
from pae_framework.system.printing import printable
from pae_framework.training.remaining import RemainingTime

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
        later: seconds that the run takes after this stage, given the stage's speed in steps or
            images per second; None if the stage is the last one or none is known.
        clock: the time, s.
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        console: PlainConsole | None = None,
        update_record: Callable[..., None] | None = None,
        later: Callable[[float], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.title, self.total = printable(title), total
        self._done, self._recorded = done, -1
        self._console = console or PlainConsole(stderr=True)
        self._update_record = update_record
        self._later, self._clock = later, clock
        self._last_shown = self._last_recorded = clock()
        self._remaining = RemainingTime(total, done, self._last_shown)
        self._bar: Progress | None = None
        if self._console.is_terminal and self._console.progress_seconds is not None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                BarColumn(),
                TextColumn(
                    "{task.completed}/{task.total}", markup=False, table_column=Column(no_wrap=True)
                ),
                TextColumn("{task.fields[note]}", markup=False),
                _LeftColumn(partial(self.left, format_clock)),
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
        now = self._clock()
        self._remaining.update(done, now)
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
        if record or completes or now - self._last_recorded >= RECORD_SECONDS:
            self._last_recorded = now
            self._record()
        seconds = self._console.progress_seconds
        if self._bar or seconds is None:
            return
        if completes or now - self._last_shown >= seconds:
            self._last_shown = now
            shown = (f"{self.title} {done}/{self.total}", note, self.left())
            self._console.print("  ".join(filter(None, shown)))

    def left(self, span: Callable[[float], str] = format_seconds) -> str:
        """How long the stage and the run still take; empty until that is known."""
        seconds, speed = self._remaining.seconds(self._clock()), self._remaining.speed
        if seconds is None or speed is None:
            return ""
        later = None if self._later is None else self._later(speed)
        run = "" if later is None else f" (run {span(seconds + later)})"
        return f"left {span(seconds)}{run}"

    def _record(self) -> None:
        if self._update_record and self._recorded != self._done:
            self._update_record(progress={"done": self._done, "total": self.total})
            self._recorded = self._done


class _LeftColumn(ProgressColumn):
    """What a function says, looked up twice a second."""

    max_refresh = 0.5

    def __init__(self, left: Callable[[], str]):
        super().__init__(Column(no_wrap=True))
        self._left = left

    def render(self, task: Task) -> Text:
        """The words; see rich."""
        return Text(self._left())
