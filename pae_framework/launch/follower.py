"""A process that follows rank 0: it waits for a stage, does its part of it, and waits again."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from pae_framework.data.image_notes import NOTES
from pae_framework.distributed.blame import REASON_SECONDS, beat, first_failure
from pae_framework.distributed.failure import LostContactError
from pae_framework.distributed.group import GroupWorld
from pae_framework.distributed.link import Link, launchers_store
from pae_framework.distributed.place import Place, place_of_process
from pae_framework.errors import StoppedError
from pae_framework.execution.context import no_record
from pae_framework.launch.team import (
    PARENT,
    POLL_SECONDS,
    StageOrder,
    done_key,
    log_file,
    order_key,
)
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import make_folder
from pae_framework.system.standard_streams import lasting_output
from pae_framework.system.stopping import STOP_SIGNALS, StopRequest


def follow(place: Place) -> int:
    """Follow rank 0 until it ends; returns the exit code.

    Nothing is printed, except if rank 0, which says why a run failed, cannot be reached.
    """
    _end_with_parent()
    with lasting_output(), StopRequest():  # rank 0 ends this process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            code = Follower(place, launchers_store()).run()
        except LostContactError as error:
            sys.stderr.write(f"error: rank {place.rank} on {platform.node()}: {error}\n")
            code = error.exit_code
    if code:  # torch might wait for what failed
        sys.stderr.flush()
        os._exit(code)
    return code


class Follower:
    """One process that follows.

    Args:
        place: of this process.
        store: of the launcher.
    """

    def __init__(self, place: Place, store: dist.Store):
        self._link = Link(store, place.rank, place.size)
        self._world = GroupWorld(place, self._link)
        self._has_log = PARENT in os.environ
        self._is_open = False
        self._ends = threading.Event()
        NOTES.relay()

    def run(self) -> int:
        """Do all orders; returns the exit code.

        Raises:
            LostContactError: rank 0 has ended.
        """
        watch = threading.Thread(target=self._end_with_the_others, daemon=True)
        watch.start()
        try:
            return self._follow()
        finally:
            self._ends.set()
            watch.join()  # a thread inside torch would abort the process at its end

    def _follow(self) -> int:
        number = 1
        try:
            while (order := self._link.wait(order_key(number), "the next stage")) is not None:
                self._do(order)
                self._link.post(done_key(number, self._world.rank), NOTES.take())
                number += 1
        except BaseException as error:
            if self._has_log:
                traceback.print_exception(error)
            failure = first_failure(error, self._link)
            self._link.leave()
            return failure.exit_code
        self._world.close()
        self._link.leave()
        return 0

    def _do(self, order: StageOrder) -> None:
        if not self._is_open:
            _log_into(log_file(order.logs, self._world.rank))
            self._has_log = True
        console = PlainConsole(stderr=True)
        context = replace(
            order.context, console=console, update_record=no_record, world=self._world
        )
        if not self._is_open:
            self._world.open(context.device, console.print)
            self._is_open = True
        name = context.name
        console.print(f"{name:<10} starts")
        try:
            order.run(context)
        except StoppedError as error:  # rank 0 ends with the same
            console.print(f"{name:<10} {error}")
            return
        console.print(f"{name:<10} done")

    def _end_with_the_others(self) -> None:
        """Beat; end this process if another failed and it does not by itself. Runs in a thread."""
        with suppress(LostContactError):
            while self._link.failure() is None:
                beat(self._link)
                if self._ends.wait(POLL_SECONDS):
                    return
        if self._ends.wait(REASON_SECONDS):
            return
        with suppress(LostContactError):
            self._link.leave()
        os._exit(1)


def _end_with_parent() -> None:
    """End this process when rank 0, if it started it, has ended."""
    if PARENT not in os.environ:
        return
    parent = int(os.environ[PARENT])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _log_into(path: Path) -> None:
    """Write standard output and error, and the log, into a file."""
    make_folder(path.parent)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")


if __name__ == "__main__":
    own_place = place_of_process()
    assert own_place is not None
    sys.exit(follow(own_place))
