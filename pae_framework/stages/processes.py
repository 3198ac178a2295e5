"""Work of one stage that falls into independent items, shared by processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from pae_framework.errors import PaeError, RunError
from pae_framework.stages.context import StageContext

Work = Callable[[int], None]
"""Does one item, by its number."""


def in_processes(
    context: StageContext,
    worker: Callable[[StageContext], Work],
    items: int,
    processes: int,
    show: Callable[[int], None],
) -> None:
    """Do the items 0 to ``items`` - 1; each process takes the next that nobody has.

    Args:
        context: the stage; every process gets its own, on a GPU of its own as far as there are any.
        worker: makes what does the items, in each process once; importable by name.
        items: how many.
        processes: how many at once.
        show: told how many items are done.

    Raises:
        PaeError: what an item raised; items under way are finished, none is begun.
        RunError: a process died, or an item failed otherwise.
    """
    spawn = multiprocessing.get_context("spawn")  # forked processes cannot use CUDA
    parts = replace(context, console=None, beat=None)  # type: ignore[arg-type]
    numbers = spawn.Value("i", 0)
    with ProcessPoolExecutor(processes, spawn, _begin, (parts, worker, numbers)) as pool:
        futures = [pool.submit(_do, item) for item in range(items)]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                show(done)
        except PaeError:
            raise
        except BrokenProcessPool as error:
            raise RunError(f"a process of {context.planned.name} died: {error}") from error
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise RunError(f"a process of {context.planned.name} failed: {message}") from error
        finally:
            pool.shutdown(cancel_futures=True)


_work: Work | None = None


def _begin(context: StageContext, worker: Callable[[StageContext], Work], numbers: Any) -> None:
    """In each process, before its first item."""
    global _work
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1
    context = replace(context, console=Console(quiet=True), beat=_no_record)
    if context.device.type == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())
    _work = worker(context)


def _do(item: int) -> None:
    assert _work is not None
    _work(item)


def _no_record(**values: Any) -> None:
    """The stage's record is kept by the process that began it."""
