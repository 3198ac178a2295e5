"""Run `pae` in forks of one process, which imports torch once, and interrupt it.

A script: reads a request per line, answers each with a line, both JSON. :class:`Interrupter` is
its other end. Interruptions are signals, sent before the n-th operation on files of the run or
after a number of seconds. Operations are counted by an audit hook; the code under test knows
nothing of it. Only the plots of the report are left out, which take most of the time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OPERATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink"}


@dataclass(frozen=True)
class Interruption:
    """Which signals a process gets, and when."""

    at: dict[int, str] = field(default_factory=dict)
    """Number of a file operation, the first is 1 -> name of the signal before it."""
    on: str = ""
    """Only operations on paths with this text are counted."""
    after: float | None = None
    """Seconds after which it gets SIGKILL."""
    group: bool = False
    """Whether all processes of its group get the signals, as Slurm sends them."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code; negative: the signal that killed it."""
    operations: int
    """File operations of the main process, if it was not killed."""
    output: str


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
        """Run ``pae WORDS --run-dir RUN_DIR``."""
        assert self._server.stdin
        assert self._server.stdout
        self._number += 1
        log = self._folder / f"{self._number}.log"
        words = ("pae", *words, "--run-dir", str(run_dir))
        request = {"words": words, "folder": str(run_dir), "log": str(log), **asdict(interruption)}
        print(json.dumps(request), file=self._server.stdin, flush=True)
        answer = json.loads(self._server.stdout.readline())
        return Ended(answer["code"], answer["operations"], log.read_text(encoding="utf-8"))


# --- the process that forks -----------------------------------------------------------------------


def serve() -> None:
    import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            run_in_fork(request, writing)
        os.close(writing)
        code = wait_for(child, request["after"])
        with os.fdopen(reading) as counted:
            operations = int(counted.read() or 0)
        print(json.dumps({"code": code, "operations": operations}), flush=True)


def import_everything() -> None:
    from pae_framework.plugins import load_registry
    from pae_framework.recipe.stage_table import STAGES
    from pae_framework.report import plots

    plots._svg = lambda figure: "<svg/>"
    registry = load_registry()
    for stage in STAGES.values():
        stage.function()
    for spec in registry.specs():
        spec.component_class()


def wait_for(child: int, seconds: float | None) -> int:
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.005)


def run_in_fork(request: dict[str, Any], writing: int) -> None:
    """Never returns."""
    os.setpgid(0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    counter = Counter(request)
    counter.install()
    sys.argv = request["words"]
    code = 1
    try:
        from pae_framework.cli.app import main

        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(writing, str(counter.count).encode())
        os._exit(code)


class Counter:
    """Counts operations on the files of a folder and sends signals before some of them."""

    def __init__(self, request: dict[str, Any]):
        self.folder, self.on = request["folder"], request["on"]
        self.send = os.killpg if request["group"] else os.kill
        signals = request["at"].items()
        self.at = {int(number): signal.Signals[f"SIG{name}"] for number, name in signals}
        self.count, self.process = 0, os.getpid()

    def install(self) -> None:
        sys.addaudithook(self.audit)
        fsync = os.fsync

        def counted_fsync(file: int) -> None:
            self.add(str(Path(f"/proc/self/fd/{file}").readlink()))
            fsync(file)

        os.fsync = counted_fsync

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
        if os.getpid() == self.process and self.on in path:  # not in worker processes
            self.count += 1
            if number := self.at.get(self.count):
                self.send(self.process, number)


if __name__ == "__main__":
    serve()
