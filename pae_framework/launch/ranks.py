"""The processes of a run, as its main process sees them. No torch before a stage runs.

Only the main process (rank 0) runs the launcher: it reads the recipe, holds the locks, writes the
records and talks. The others follow (``follower.py``): they wait for a stage, do their part of it,
and wait again. Either the main process starts them, or a launcher such as torchrun started all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from pae_framework.distributed.place import place_of_process
from pae_framework.errors import StoppedError, UsageError
from pae_framework.preflight.machine import this_machine
from pae_framework.system.console import PlainConsole

if TYPE_CHECKING:
    from pae_framework.execution.context import SharedWork
    from pae_framework.launch.team import Team

    Work = TypeVar("Work", bound=SharedWork)

MOST = 1024
"""Processes that ``--processes`` may start."""
AUTO = "auto"


def count_processes(wanted: str | int | None) -> int:
    """The number of processes of a run.

    Args:
        wanted: what ``--processes`` says, a number or ``auto`` (one per visible GPU); None: as many
            as a launcher has started, or 1.

    Raises:
        UsageError: it is no such number, or a launcher has already started several.
    """
    place = place_of_process()
    if wanted is None:
        return place.size if place else 1
    if place is not None:
        raise UsageError(
            f"--processes: a launcher has already started {place.size} processes (WORLD_SIZE); "
            "leave --processes out"
        )
    wanted = str(wanted)
    if wanted == AUTO:
        return max(1, len(this_machine().gpus))
    if not (wanted.isascii() and wanted.isdigit()) or not 1 <= int(wanted) <= MOST:
        raise UsageError(f"--processes {wanted}: expected a number from 1 to {MOST}, or auto")
    return int(wanted)


class Ranks:
    """The processes of a run; a context manager that ends them.

    Args:
        size: number of processes.
        console: of the main process.
    """

    def __init__(self, size: int, console: PlainConsole):
        self.size, self._console = size, console
        self._launched = place_of_process()
        self._team: Team | None = None
        self._is_lost = False
        if size > 1:  # DDP warns of a slow setting that some steps need; torch reads it at import
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    def __enter__(self) -> Self:
        if self._launched is not None:  # the others wait for this process' store
            from pae_framework.launch.team import Team

            self._team = Team.launched(self._launched, self._console)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def run(self, context: Work, run: Callable[[Work], None], logs: Path) -> None:
        """Run a stage in every process; returns when all have done their part.

        Args:
            context: of the stage or other work, for one process.
            run: runs the stage in this process; the others run the same.
            logs: folder for one log per process.

        Raises:
            PaeError: the stage failed here or in another process, which is named.
        """
        if self.size == 1:
            run(context)
            return
        if self._is_lost:
            raise StoppedError("the other processes have ended")
        from pae_framework.launch.team import Team

        if self._team is None:
            self._team = Team.started(self.size, logs, self._console)
        try:
            self._team.run(context, run, logs)
        except StoppedError:
            raise
        except BaseException as error:
            self._end(at_once=isinstance(error, KeyboardInterrupt))
            self._is_lost = self._launched is not None
            raise

    def _end(self, at_once: bool = False) -> None:
        team, self._team = self._team, None
        if team is not None:
            team.end(at_once)


@contextmanager
def ranks_for(wanted: str | int | None, console: PlainConsole) -> Iterator[Ranks]:
    """The processes that ``--processes`` asks for, or that a launcher has started; then ends them.

    Raises:
        UsageError: as of :func:`count_processes`; processes of a launcher have been told.
    """
    place = place_of_process()
    with Ranks(place.size if place else count_processes(wanted), console) as ranks:
        if place:
            count_processes(wanted)
        yield ranks
