"""The processes of a run at work: rank 0 hands out stages, watches the others, and ends them."""

from __future__ import annotations

import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TextIO, TypeVar, cast

from pae_framework.data.image_notes import NOTES
from pae_framework.distributed.blame import Pulses, first_failure
from pae_framework.distributed.failure import Failure, LostContactError, RankError
from pae_framework.distributed.group import GroupWorld
from pae_framework.distributed.link import Link, launchers_store, own_store
from pae_framework.distributed.place import Place
from pae_framework.errors import INTERRUPTED, StoppedError
from pae_framework.execution.context import SharedWork
from pae_framework.file_plugins import Portable
from pae_framework.preflight.machine import memory_advice
from pae_framework.system.console import PlainConsole
from pae_framework.system.cores import threads_per_process
from pae_framework.system.file_errors import writing
from pae_framework.system.files import make_folder
from pae_framework.system.standard_streams import LastingStream
from pae_framework.system.stopping import StopRequest, stop_signals_blocked

PARENT = "PAE_PARENT"
"""Process number of rank 0, for the processes that it starts: they end when it has ended."""
END_SECONDS = 10.0
"""How long processes may take to end when they are told to."""
POLL_SECONDS = 0.2
Work = TypeVar("Work", bound=SharedWork)
PULSE_SECONDS = 1.0
"""Interval between two looks at processes that a launcher started."""


@dataclass(frozen=True)
class StageOrder:
    """What the other processes are told to run.

    Args:
        context: without what belongs to one process.
        run: what they call with it; a function of a module, or a partial of one.
        logs: folder for their logs.
    """

    context: SharedWork
    run: Callable[[Any], None]
    logs: Path

    def __reduce__(self) -> tuple[Any, ...]:
        """What may be of classes of plugin files is sent with these files."""
        return _received, (Portable((self.context, self.run)), self.logs)

    @classmethod
    def of(cls, context: Work, run: Callable[[Work], None], logs: Path) -> Self:
        """The order to run a stage, in whatever folder a process is."""
        portable = replace(context.portable(), console=None, update_record=None)
        return cls(portable, run, logs.absolute())


def _received(sent: Portable[tuple[Any, Any]], logs: Path) -> StageOrder:
    """The order, in another process."""
    return StageOrder(*sent.value, logs)


def order_key(number: int) -> str:
    """Key of an order; its message is None when nothing is left to do."""
    return f"order/{number}"


def done_key(number: int, rank: int) -> str:
    """Key that says that a process has done its part of an order; with its notes about images."""
    return f"done/{number}/{rank}"


def log_file(logs: Path, rank: int) -> Path:
    """The log of a process."""
    return logs / f"rank{rank}.log"


class Team:
    """Rank 0 and the processes that follow it.

    Args:
        place: of this process.
        link: to the others.
        console: of this process; copied into its log.
        processes: those that this one started, from rank 1; empty: a launcher started them.
    """

    def __init__(
        self,
        place: Place,
        link: Link,
        console: PlainConsole,
        processes: Sequence[subprocess.Popen[bytes]] = (),
    ):
        self.world, self._link, self._console = GroupWorld(place, link), link, console
        self._processes = processes
        self._orders = 0
        self._is_open = False
        self._at_work: tuple[SharedWork, Path] | None = None
        self._ends = threading.Event()
        self._watch = threading.Thread(target=self._look_after, daemon=True)
        self._watch.start()

    @classmethod
    def started(cls, size: int, logs: Path, console: PlainConsole) -> Self:
        """Start ``size`` - 1 processes on this machine."""
        store = own_store()
        make_folder(logs)
        with ExitStack() as if_one_fails:
            processes = []
            for rank in range(1, size):
                processes.append(_start_follower(rank, size, store.port, log_file(logs, rank)))
                if_one_fails.callback(processes[-1].kill)
            if_one_fails.pop_all()
        return cls(Place(0, size, 0, size), Link(store, 0, size), console, processes)

    @classmethod
    def launched(cls, place: Place, console: PlainConsole) -> Self:
        """Join the processes that a launcher started."""
        return cls(place, Link(launchers_store(), place.rank, place.size), console)

    def run(self, context: Work, run: Callable[[Work], None], logs: Path) -> None:
        """Run a stage in every process; see :meth:`pae_framework.launch.ranks.Ranks.run`."""
        self._orders += 1
        with _logging(self._console, log_file(logs, 0)):
            try:
                self._link.post(order_key(self._orders), StageOrder.of(context, run, logs))
                own = replace(context, world=self.world)
                if not self._is_open:
                    self.world.open(own.device, self._tell)
                    self._is_open = True
                self._at_work = own, logs
                run(own)
                for rank in range(1, self.world.size):
                    NOTES.update(self._link.wait(done_key(self._orders, rank), f"rank {rank}"))
            except StoppedError:
                raise
            except Exception as error:
                if not self._processes:
                    # torchrun signals all when one has ended; this one has yet to say why.
                    StopRequest().__enter__()
                failure = first_failure(error, self._link)
                if failure.message == Failure.of(error, 0).message and failure.rank > 0:
                    raise  # that of the whole batch, which all processes meet
                if failure.exit_code == INTERRUPTED:  # the terminal signals every process
                    raise KeyboardInterrupt from error
                raise RankError(failure, log_file(logs, failure.rank)) from error
            except BaseException as error:  # Ctrl-C
                with suppress(LostContactError):
                    self._link.fail(Failure.of(error, 0))
                raise
            finally:
                self._at_work = None

    def _look_after(self) -> None:
        """Notice failures, and free this process from waiting for who failed. Runs in a thread."""
        pulses = Pulses(self._link)
        with suppress(LostContactError):  # the main thread meets it too
            while (failure := self._link.failure()) is None:
                if self._ends.wait(POLL_SECONDS if self._processes else PULSE_SECONDS):
                    return
                self._tell_of_deaths()
                if (silent := pulses.silent(time.monotonic())) is not None:
                    self._link.fail(silent)
            # gloo raises an error in whoever waits; NCCL may wait for ever.
            while not self._ends.wait(END_SECONDS):
                if not self.world.works_alone and not self.world.abort():
                    self._end_by_force(failure)

    def _end_by_force(self, failure: Failure) -> None:
        """End this process if it may wait for a GPU for ever; elsewhere it meets an error."""
        if self._at_work is None or self._at_work[0].device.type != "cuda":
            return
        context, logs = self._at_work
        error = RankError(failure, log_file(logs, failure.rank))
        with suppress(Exception):  # the process ends in any case
            context.update_record(state="failed", error=str(error))
        with suppress(OSError):
            sys.stderr.write(f"error: {error}\n")
            sys.stderr.flush()
        os._exit(failure.exit_code)

    def _tell_of_deaths(self) -> None:
        """Tell of processes that died without a word."""
        for rank, process in enumerate(self._processes, start=1):
            code = process.poll()
            if code is not None and not self._ends.wait(1.0):  # its own word comes first
                self._link.fail(Failure(rank, platform.node(), _death(code)))

    def end(self, at_once: bool = False) -> None:
        """Tell the others that nothing is left to do, and wait until they have ended.

        Args:
            at_once: kill those that this process started.
        """
        self._ends.set()
        for process in self._processes if at_once else ():
            process.kill()
        failed = True
        with suppress(LostContactError):  # the store may be gone with who kept it
            self._link.post(order_key(self._orders + 1))
            failed = self._link.failure() is not None
        # Before waiting for the others: with NCCL, all leave their group together.
        self.world.close(failed)
        if not self._processes:
            with suppress(LostContactError):
                self._link.wait_for_leaving(END_SECONDS)
        deadline = time.monotonic() + END_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._watch.join()

    def _tell(self, text: str) -> None:
        self._console.print(f"{'':<10} {text}")


@contextmanager
def _logging(console: PlainConsole, path: Path) -> Iterator[None]:
    """Copy what rank 0 prints and logs into its log, and the traceback of an error.

    The run outlasts a log that can no longer be written.
    """
    root = logging.getLogger()
    make_folder(path.parent)
    with writing(path):
        opened = path.open("a", encoding="utf-8")
    with opened:
        file = cast(TextIO, LastingStream(opened))
        in_file = logging.StreamHandler(file)
        in_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handlers: list[logging.Handler] = [in_file]
        if not root.handlers:  # otherwise logging's own last resort would no longer be used
            handlers.append(logging.StreamHandler())
        for handler in handlers:
            handler.setLevel(logging.WARNING)
            root.addHandler(handler)
        console.copy_to(file)
        try:
            yield
        except StoppedError:
            raise
        except BaseException:
            traceback.print_exc(file=file)
            raise
        finally:
            file.flush()
            console.copy_to(None)
            for handler in handlers:
                root.removeHandler(handler)


def _start_follower(rank: int, size: int, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a process on this machine."""
    variables = {
        "OMP_NUM_THREADS": str(threads_per_process(size)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        PARENT: str(os.getpid()),
    }
    # A signal that comes while it starts waits until it can stop in good order (follower.follow).
    with log.open("ab") as file, stop_signals_blocked():
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pae_framework.launch.follower"],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )


def _death(code: int) -> str:
    """How a process died, from its exit code."""
    if code == -signal.SIGKILL:
        return f"was killed by signal {-code}, {memory_advice('--processes')}"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
