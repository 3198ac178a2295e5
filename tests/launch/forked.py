"""Run `pae` in forks of one process that has imported everything: a new process costs little.

A script: reads a request per line, runs a command, answers with its exit code, both JSON.
:func:`run_forked` is its other end.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

ALSO = (
    *("pae_framework.cli.app", "pae_framework.cli.commands.run", "pae_framework.launch.local"),
    *("fsspec", "torch._dynamo", "torch.utils.tensorboard"),
)
"""What a run imports besides stages and components."""


def import_everything() -> None:
    """Import what a run needs; leave out the plots of reports, which take most of their time."""
    from pae_framework.plugins import load_registry
    from pae_framework.recipe.stage_table import STAGES
    from pae_framework.report import plots

    plots._svg = lambda figure: "<svg/>"
    registry = load_registry()
    for stage in STAGES.values():
        stage.function()
    for spec in registry.specs():
        spec.component_class()
    for name in ALSO:
        import_module(name)


def fresh_random_numbers() -> None:
    """Unseeded draws differ between forks, as between processes."""
    import numpy as np
    import torch

    random.seed(os.urandom(16))
    np.random.seed(int.from_bytes(os.urandom(4), "little"))
    torch.seed()


def wait_for(child: int, seconds: float | None, kill: Callable[[int, int], None] = os.kill) -> int:
    """The exit code of a process; after some seconds, ``kill`` sends it SIGKILL."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.005)


def run_forked(*words: str, cwd: Path, timeout: float) -> tuple[int, str, str]:
    """Exit code and output of ``pae WORDS``, run in a folder with this process' environment."""
    server = _server()
    assert server.stdin
    assert server.stdout
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        request = {
            "words": ["pae", *words],
            "cwd": str(cwd),
            "environment": dict(os.environ),
            "output": [str(out), str(err)],
            "timeout": timeout,
        }
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(request)
        print(wait_for(child, request["timeout"], os.killpg), flush=True)


def _run(request: dict[str, Any]) -> NoReturn:
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, path in enumerate(request["output"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    fresh_random_numbers()
    os._exit(run_main(request["words"]))


def run_main(words: list[str]) -> int:
    """The exit code of a command line in this process."""
    from pae_framework.cli.app import main

    sys.argv = words
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
