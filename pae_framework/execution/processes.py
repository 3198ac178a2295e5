"""Independent items of work of one stage, done in this process or by several on this machine.

When asked to stop, running items are finished and no other is started. Worker processes ignore the
signals that ask for it. They end with this one, however it ends: each holds one end of a pipe and
exits when the other end, held only by this process, is closed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from pae_framework.data.image_notes import NOTES
from pae_framework.data.read_ahead import processes_work
from pae_framework.errors import PaeError, RunError
from pae_framework.execution.context import StageContext, configure_torch, no_record
from pae_framework.preflight.machine import memory_advice
from pae_framework.system.console import PlainConsole
from pae_framework.system.stopping import StopRequest, stop_signals_blocked

Work = Callable[[int], None]
"""Does the item with this number."""

POLL_SECONDS = 0.2
"""Interval between checks for a stop request."""


def do_items(
    context: StageContext,
    worker: Callable[[StageContext], Work],
    items: int,
    processes: int,
    show: Callable[[int], None],
) -> int:
    """Do the items 0 to ``items`` - 1; an idle process takes the next one.

    Args:
        context: the stage. Every process gets its own, on its own GPU if there are enough.
        worker: creates the work, once in each process; importable by name.
        items: number of items.
        processes: number of processes; 1: this one only.
        show: called with the number of items done.

    Returns:
        The number of items done, less than ``items`` after a stop request.

    Raises:
        PaeError: raised by an item; running items are finished and no other is started.
        RunError: a process died, or an item raised another error in a process.
    """
    with StopRequest() as stop:
        if processes > 1 and processes_work():
            return _in_processes(context, worker, items, processes, show, stop)
        work = worker(context)
        for item in range(items):
            if stop.asked:
                return item
            work(item)
            show(item + 1)
    return items


def _in_processes(
    context: StageContext,
    worker: Callable[[StageContext], Work],
    items: int,
    processes: int,
    show: Callable[[int], None],
    stop: StopRequest,
) -> int:
    spawn = multiprocessing.get_context("spawn")  # forked processes cannot use CUDA
    portable = replace(context, console=None, update_record=None)  # type: ignore[arg-type]
    end, lifeline = spawn.Pipe(duplex=False)
    with stop_signals_blocked(), _tracker_is_quiet():  # inherited by that process
        number = spawn.Value("i", 0)
    begin = (portable, worker, number, end)
    count = _Count(show)
    try:
        with ProcessPoolExecutor(processes, spawn, _begin, begin) as pool:
            try:
                _hand_out(pool, items, processes, count, stop)
            except (KeyboardInterrupt, BrokenProcessPool):  # no item is finished
                lifeline.close()
                raise
    except PaeError:
        raise
    except BrokenProcessPool as error:
        raise RunError(_death(context.planned.name, count.exits())) from error
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise RunError(f"a process of {context.planned.name} failed: {message}") from error
    finally:
        lifeline.close()
        end.close()
    return count.done


@contextmanager
def _tracker_is_quiet() -> Iterator[None]:
    """Let Python's process that tracks shared resources, if it starts in the block, print nothing.

    If a signal ends this process, that one removes what is left; its warning would be the last
    line of the output.
    """
    option = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(option)
    try:
        yield
    finally:
        sys.warnoptions.remove(option)


def _death(stage: str, exits: Collection[int]) -> str:
    """How a process of the stage died, from the exit codes of all."""
    # The pool itself ends the others by SIGTERM.
    code = next((code for code in exits if code not in (0, -signal.SIGTERM)), None)
    if code is None:
        how = "died"
    elif code < 0:
        how = f"was killed by signal {-code}"
    else:
        how = f"ended with exit code {code}"
    advice = f", {memory_advice(f'{stage}.processes')}" if code == -signal.SIGKILL else ""
    return f"a process of {stage} {how}{advice}; finished work is kept, run it again to resume"


@dataclass
class _Count:
    """Number of items done, and the processes that do them."""

    show: Callable[[int], None]
    done: int = 0
    processes: dict[int | None, BaseProcess] = field(default_factory=dict)

    def exits(self) -> list[int]:
        """Exit codes of the processes that ended."""
        for process in self.processes.values():
            process.join(1)
        codes = (process.exitcode for process in self.processes.values())
        return [code for code in codes if code is not None]

    def add(self) -> None:
        self.done += 1
        self.show(self.done)


def _hand_out(
    pool: ProcessPoolExecutor, items: int, processes: int, count: _Count, stop: StopRequest
) -> None:
    """Give each idle process one item until all are done."""
    waiting = iter(range(items))
    running: set[Future[dict[str, list[str]]]] = set()
    while True:
        if not stop.asked:
            idle = processes - len(running)
            with stop_signals_blocked():  # the first call starts the processes
                running |= {pool.submit(_do, item) for item in islice(waiting, idle)}
            count.processes |= {child.pid: child for child in multiprocessing.active_children()}
        if not running:
            return
        finished, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
        for future in finished:
            NOTES.update(future.result())
            count.add()


# --- in each process ------------------------------------------------------------------------------

_make: Callable[[], Work] | None = None
_work: Work | None = None


def _begin(
    context: StageContext, worker: Callable[[StageContext], Work], numbers: Any, end: Connection
) -> None:
    """Prepare a process. Errors here do not reach the user, so the work is created later."""
    global _make
    threading.Thread(target=_exit_with, args=(end,), daemon=True).start()
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1

    NOTES.relay()

    def make() -> Work:
        own = replace(context, console=PlainConsole(quiet=True), update_record=no_record)
        configure_torch(own.recipe.runtime)
        if own.device.type == "cuda":
            torch.cuda.set_device(number % torch.cuda.device_count())
        return worker(own)

    _make = make


def _do(item: int) -> dict[str, list[str]]:
    """Do an item; returns the notes about the images that it read."""
    global _work
    if _work is None:
        assert _make is not None
        _work = _make()
    _work(item)
    return NOTES.take()


def _exit_with(end: Connection) -> None:
    """Exit when the other end of the pipe is closed; nothing is ever written into it."""
    end.poll(None)
    os._exit(1)
