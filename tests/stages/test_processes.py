"""Items of a stage done by one process or several: errors reach the user with their reason."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pae_framework.execution.processes import do_items

from pae_framework.errors import DataError, RunError
from pae_framework.recipe.models import RuntimeSettings
from pae_framework.system.stopping import STOP_SIGNALS


@dataclass
class Context:
    """As much of a stage's context as the processes look at."""

    directory: Path
    console: Any = None
    update_record: Any = None

    @property
    def recipe(self) -> Any:
        return SimpleNamespace(runtime=RuntimeSettings())

    @property
    def planned(self) -> Any:
        return SimpleNamespace(name="latents")

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


class Touch:
    """Leaves a file for each item, in which stands the process."""

    def __init__(self, context: Any):
        self.directory = context.directory

    def __call__(self, item: int) -> None:
        (self.directory / str(item)).write_text(str(os.getpid()), encoding="utf-8")


class OutOfMemory(Touch):
    """Cannot be made, for a reason that is not this project's."""

    def __init__(self, context: Any):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")


class Unreadable(Touch):
    """Fails at the third item."""

    def __call__(self, item: int) -> None:
        if item == 2:
            raise DataError("2.png: cannot be read as an image")
        super().__call__(item)


class Dying(Touch):
    """Ends its process, as the system does where memory is short."""

    def __call__(self, item: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Signaled(Touch):
    """Gets every signal that asks to stop, as Slurm sends them to all processes of a job."""

    def __call__(self, item: int) -> None:
        for number in STOP_SIGNALS:
            os.kill(os.getpid(), number)
        super().__call__(item)


class OneDies(Touch):
    """The process of the first item is killed; the other waits for an item, or is at work."""

    def __call__(self, item: int) -> None:
        if item == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01 if item % 2 else 1000)


def run(worker: Callable[..., Any], folder: Path, items: int, processes: int) -> list[int]:
    """What :func:`do_items` showed."""
    shown: list[int] = []
    context: Any = Context(folder)
    assert do_items(context, worker, items, processes, shown.append) == len(shown)
    return shown


def test_with_one_process_work_is_done_here(tmp_path: Path) -> None:
    assert run(Touch, tmp_path, 5, processes=1) == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == list("01234")
    assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {str(os.getpid())}


@pytest.mark.parametrize(
    ("worker", "error", "message"),
    [
        (OutOfMemory, RunError, r"latents .*OutOfMemoryError: tried to allocate 20 GiB"),
        (Unreadable, DataError, r"^2\.png: cannot be read as an image$"),
        (Dying, RunError, r"process of latents .*signal 9.*latents\.processes"),
        (OneDies, RunError, "process of latents"),
    ],
)
def test_errors_of_a_process_are_reported(
    tmp_path: Path, worker: type[Touch], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(worker, tmp_path, 40, 2)
    assert len(list(tmp_path.iterdir())) < 5  # nothing more was begun


def test_processes_ignore_the_signals_that_ask_to_stop(tmp_path: Path) -> None:
    assert run(Signaled, tmp_path, 6, processes=2) == [1, 2, 3, 4, 5, 6]
    pids = {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert str(os.getpid()) not in pids


@pytest.mark.parametrize("processes", [1, 2])
def test_signals_stop_after_the_items_under_way(tmp_path: Path, processes: int) -> None:
    def show(done: int) -> None:
        for number in STOP_SIGNALS if done == 1 else ():
            os.kill(os.getpid(), number)

    context: Any = Context(tmp_path)
    done = do_items(context, Touch, 40, processes, show)
    assert 1 <= done <= processes + 1
    assert len(list(tmp_path.iterdir())) == done


class Exiting(Touch):
    """Ends its process with an exit code of its own."""

    def __call__(self, item: int) -> None:
        os._exit(7)


@pytest.mark.slow
def test_the_exit_code_of_a_process_that_ended_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exit code 7"):
        run(Exiting, tmp_path, 4, 2)


def test_one_process_does_everything_where_no_other_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    assert run(Touch, tmp_path, 4, 2) == [1, 2, 3, 4]
    assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {str(os.getpid())}


def test_a_signal_that_ends_the_process_leaves_no_warning() -> None:
    """The semaphore of a number that is shared would be reported as leaked."""
    script = """
import multiprocessing, os, signal
from pae_framework.execution.processes import _tracker_is_quiet
with _tracker_is_quiet():
    number = multiprocessing.get_context("spawn").Value("i", 0)
os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr == ""
