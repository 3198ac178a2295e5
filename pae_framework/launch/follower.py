"""A process that follows rank 0: it waits for a stage, does its part of it, and waits again."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

from pae_framework.data.image_notes import NOTES
from pae_framework.distributed.failure import Failure, is_consequence
from pae_framework.distributed.group import GroupWorld
from pae_framework.distributed.link import Link, launchers_store
from pae_framework.distributed.place import Place, place_of_process
from pae_framework.errors import PaeError, StoppedError
from pae_framework.execution.context import no_record
from pae_framework.launch.stage import run_stage
from pae_framework.launch.team import (
    LIFELINE,
    POLL_SECONDS,
    REASON_SECONDS,
    StageOrder,
    done_key,
    log_file,
    order_key,
)
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import make_folder
from pae_framework.system.stopping import StopRequest


def follow(place: Place) -> int:
    """Follow rank 0 until it ends; returns the exit code."""
    follower = Follower(place)
    with StopRequest():  # rank 0 ends this process
        return follower.run()


class Follower:
    """One process that follows."""

    def __init__(self, place: Place):
        self._place = place
        _end_with_lifeline()
        self._link = Link(launchers_store(), place.rank, place.size)
        self._world = GroupWorld(place, self._link)
        self._is_open = False
        NOTES.relay()

    def run(self) -> int:
        """Do all orders; returns the exit code."""
        threading.Thread(target=self._end_with_the_others, daemon=True).start()
        number = 1
        try:
            while (order := self._link.wait(order_key(number))) is not None:
                self._do(order)
                self._link.post(done_key(number, self._place.rank), NOTES.take())
                number += 1
        except BaseException as error:
            return self._fail(error)
        self._world.close()
        return 0

    def _do(self, order: StageOrder) -> None:
        if not self._is_open:
            _log_into(log_file(order.logs, self._place.rank))
        console = PlainConsole(stderr=True)
        context = replace(
            order.context, console=console, update_record=no_record, world=self._world
        )
        if not self._is_open:
            self._world.open(context.device, console.print)
            self._is_open = True
        name = context.planned.name
        console.print(f"{name:<10} starts")
        try:
            run_stage(context)
        except StoppedError as error:  # rank 0 ends with the same
            console.print(f"{name:<10} {error}")
            return
        console.print(f"{name:<10} done")

    def _fail(self, error: BaseException) -> int:
        """Tell the others, unless the failure of another process is the cause."""
        if isinstance(error, PaeError):
            sys.stderr.write(f"error: {error}\n")
        traceback.print_exception(error)
        sys.stderr.flush()
        failure = Failure.of(error, self._place.rank)
        try:
            start = time.monotonic()
            while is_consequence(error) and time.monotonic() - start < REASON_SECONDS:
                if self._link.failure() is not None:
                    return failure.exit_code
                time.sleep(POLL_SECONDS)
            self._link.fail(failure)
        except PaeError:  # rank 0 has ended
            pass
        return failure.exit_code

    def _end_with_the_others(self) -> None:
        """End this process if another failed and it does not end by itself. Runs in a thread."""
        try:
            while self._link.failure() is None:
                time.sleep(POLL_SECONDS)
        except PaeError:
            pass
        time.sleep(REASON_SECONDS)
        os._exit(1)


def _end_with_lifeline() -> None:
    """End this process when rank 0, which started it, has ended."""
    if LIFELINE not in os.environ:
        return
    descriptor = int(os.environ[LIFELINE])

    def wait() -> None:
        os.read(descriptor, 1)  # nothing is ever written into it
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


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
