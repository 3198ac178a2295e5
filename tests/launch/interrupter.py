"""Run `pae` in forks of one process, which imports torch once, and interrupt it.

A script: reads a request per line, answers each with a line, both JSON. :class:`Interrupter` is
its other end. Interruptions are signals, sent before the n-th operation or after a number of
seconds. Operations are those on files of the run, counted by an audit hook, and the beginning and
end of each optimizer step; the code under test knows nothing of it. Only the plots of the report
are left out, which take most of the time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forked import fresh_random_numbers, import_everything, run_main, wait_for

OPERATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink"}
STAGE = re.compile(r"/stages/([a-z]+)-")
FULL = "FULL"
"""In place of a signal: the disk is full from then on."""
FILLER = "filler"
"""Name of the file beside the run's folder that fills the disk."""


@dataclass(frozen=True)
class Interruption:
    """What a process is sent, and when."""

    at: dict[int, str] = field(default_factory=dict)
    """Number of an operation, the first is 1 -> name of the signal before it, or :data:`FULL`."""
    on: str = ""
    """Only operations on paths in which this regular expression is found are counted."""
    after: float | None = None
    """Seconds after which it gets SIGKILL."""
    group: bool = False
    """Whether all processes of its group get the signals, as Slurm sends them."""
    clock: float = 0.0
    """Seconds by which the clock is wrong."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code; negative: the signal that killed it."""
    operations: dict[str, int]
    """Operations of the main process by stage, if it was not killed; "" is none of the stages."""
    output: str


@dataclass(frozen=True)
class Started:
    """A process that runs."""

    pid: int
    log: Path


class Interrupter:
    """Runs commands in forks of a process that has everything imported. A context manager."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._number = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Interrupter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.communicate()

    def run(self, run_dir: Path, interruption: Interruption, *words: str) -> Ended:
        """Run ``pae WORDS --run-dir RUN_DIR`` to its end."""
        return self.finish(self.start(run_dir, interruption, *words), interruption)

    def start(self, run_dir: Path, interruption: Interruption, *words: str) -> Started:
        """Start ``pae WORDS --run-dir RUN_DIR``."""
        self._number += 1
        log = self._folder / f"{self._number}.log"
        log.touch()
        words = ("pae", *words, "--run-dir", str(run_dir))
        request = {"words": words, "folder": str(run_dir), "log": str(log), **asdict(interruption)}
        return Started(self._ask(request)["pid"], log)

    def finish(self, started: Started, interruption: Interruption | None = None) -> Ended:
        """Wait for the end of a process."""
        after = interruption.after if interruption else None
        answer = self._ask({"pid": started.pid, "after": after})
        return Ended(**answer, output=started.log.read_text(encoding="utf-8"))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps(request), file=self._server.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


# --- the process that forks -----------------------------------------------------------------------


def serve() -> None:
    import_everything()
    counted: dict[int, int] = {}
    """Process -> descriptor from which its operations are read."""
    for line in sys.stdin:
        request = json.loads(line)
        if child := request.get("pid"):
            code = wait_for(child, request["after"])
            with os.fdopen(counted.pop(child)) as file:
                answer = {"code": code, "operations": json.loads(file.read() or "{}")}
        else:
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reading)
                run_in_fork(request, writing)
            os.close(writing)
            counted[child], answer = reading, {"pid": child}
        print(json.dumps(answer), flush=True)


def run_in_fork(request: dict[str, Any], writing: int) -> None:
    """Never returns."""
    os.setpgid(0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    counter = Counter(request)
    counter.install()
    shift_clock(request["clock"])
    fresh_random_numbers()
    code = run_main(request["words"])
    os.write(writing, json.dumps(counter.operations).encode())
    os._exit(code)


def shift_clock(seconds: float) -> None:
    """Let Python's clock be wrong; times of files stay those of the system."""
    now, now_ns, text = time.time, time.time_ns, time.strftime
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)
    time.strftime = lambda form, then=None: text(form, then or time.localtime(time.time()))


class Counter:
    """Counts operations and interrupts the process before some of them."""

    def __init__(self, request: dict[str, Any]):
        self.folder, self.on = request["folder"], re.compile(request["on"])
        self.group = request["group"]
        self.at = {int(number): name for number, name in request["at"].items()}
        self.count, self.process = 0, os.getpid()
        self.operations: dict[str, int] = {}
        self.last = self.folder
        """Path of the last operation."""
        self.lock = threading.RLock()
        """Checkpoints are written in another thread."""

    def install(self) -> None:
        from pae_framework.training import loop

        sys.addaudithook(self.audit)
        fsync, step = os.fsync, loop.optimizer_step

        def counted_fsync(file: int) -> None:
            self.add(str(Path(f"/proc/self/fd/{file}").readlink()))
            fsync(file)

        def counted_step(*arguments: Any, **named: Any) -> Any:
            self.add(self.last)
            terms = step(*arguments, **named)
            self.add(self.last)
            return terms

        os.fsync, loop.optimizer_step = counted_fsync, counted_step

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS or (event == "open" and self.writes(*arguments)):
            # A path relative to an open folder is one that is being removed.
            relative = arguments[-1] if event in {"os.remove", "os.rmdir"} else -1
            if relative != -1 or str(arguments[0]).startswith(self.folder):
                self.add(str(arguments[0]))

    @staticmethod
    def writes(path: Any, mode: str | None, flags: int) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR))

    def add(self, path: str) -> None:
        if os.getpid() != self.process:  # in worker processes
            return
        with self.lock:
            self.last = path
            stage = found[1] if (found := STAGE.search(path)) else ""
            self.operations[stage] = self.operations.get(stage, 0) + 1
            if self.on.search(path):
                self.count += 1
                if action := self.at.pop(self.count, None):
                    self.interrupt(action)

    def interrupt(self, action: str) -> None:
        if action == FULL:
            fill_disk(Path(self.folder).with_name(FILLER))
        else:
            send = os.killpg if self.group else os.kill
            send(self.process, signal.Signals[f"SIG{action}"])


def fill_disk(filler: Path) -> None:
    """Write a file until nothing more fits."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass


if __name__ == "__main__":
    serve()
