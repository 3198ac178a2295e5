"""Work of one stage that falls into independent items, done here or by processes of this machine.

Asked to stop (SIGINT, SIGTERM), it finishes the items under way and begins no other. However this
process ends, those that it started end with it: each holds the end of a pipe whose other end only
this one has, and exits when that is closed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import torch
from rich.console import Console

from pae_framework.errors import PaeError, RunError
from pae_framework.execution.context import StageContext, configure_torch
from pae_framework.training.stopping import StopRequest

Work = Callable[[int], None]
"""Does one item, by its number."""

POLL_SECONDS = 0.2
"""Time between two checks whether to stop."""


def do_items(
    context: StageContext,
    worker: Callable[[StageContext], Work],
    items: int,
    processes: int,
    show: Callable[[int], None],
) -> int:
    """Do the items 0 to ``items`` - 1; each process takes the next that nobody has.

    Args:
        context: the stage; every process gets its own, on a GPU of its own as far as there are any.
        worker: makes what does the items, in each process once; importable by name.
        items: how many.
        processes: how many at once; 1: this one.
        show: told how many items are done.

    Returns:
        How many are done: fewer than ``items`` where it was asked to stop.

    Raises:
        PaeError: what an item raised; items under way are finished, none is begun.
        RunError: a process died, or an item failed otherwise there.
    """
    with StopRequest() as stop:
        if processes > 1:
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
    begin = (portable, worker, spawn.Value("i", 0), end)
    count = _Count(show)
    try:
        with ProcessPoolExecutor(processes, spawn, _begin, begin) as pool:
            try:
                _hand_out(pool, items, processes, count, stop)
            except KeyboardInterrupt:  # asked a second time: nothing is finished
                lifeline.close()
                raise
    except PaeError:
        raise
    except BrokenProcessPool as error:
        if not stop.asked:  # a signal to all of us ends the others at once
            raise RunError(f"a process of {context.planned.name} died: {error}") from error
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise RunError(f"a process of {context.planned.name} failed: {message}") from error
    finally:
        lifeline.close()
        end.close()
    return count.done


@dataclass
class _Count:
    """Items done."""

    show: Callable[[int], None]
    done: int = 0

    def add(self) -> None:
        self.done += 1
        self.show(self.done)


def _hand_out(
    pool: ProcessPoolExecutor, items: int, processes: int, count: _Count, stop: StopRequest
) -> None:
    """Keep every process at work, and none with a second item waiting, until all is done."""
    waiting = iter(range(items))
    under_way: set[Future[None]] = set()
    while True:
        if not stop.asked:
            free = processes - len(under_way)
            under_way |= {pool.submit(_do, item) for item in islice(waiting, free)}
        if not under_way:
            return
        finished, under_way = wait(under_way, POLL_SECONDS, FIRST_COMPLETED)
        for future in finished:
            future.result()
            count.add()


# --- in each process ------------------------------------------------------------------------------

_make: Callable[[], Work] | None = None
_work: Work | None = None


def _begin(
    context: StageContext, worker: Callable[[StageContext], Work], numbers: Any, end: Connection
) -> None:
    """Before the first item. An error here would not reach the user: what may fail comes later."""
    global _make
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out
    threading.Thread(target=_exit_with, args=(end,), daemon=True).start()
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1

    def make() -> Work:
        own = replace(context, console=Console(quiet=True), update_record=_no_record)
        configure_torch(own.recipe.runtime)
        if own.device.type == "cuda":
            torch.cuda.set_device(number % torch.cuda.device_count())
        return worker(own)

    _make = make


def _do(item: int) -> None:
    global _work
    if _work is None:
        assert _make is not None
        _work = _make()
    _work(item)


def _exit_with(end: Connection) -> None:
    """Exit when the other end of a pipe, into which nobody writes, is closed."""
    end.poll(None)
    os._exit(1)


def _no_record(**values: Any) -> None:
    """The stage's record is kept by the process that began it."""
