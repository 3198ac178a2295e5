"""Run `pae` in a new process, and kill it in a chosen stage."""

from __future__ import annotations

import os
from pathlib import Path

from pae_framework.testing.pytest import Result, run_process

LIMIT = 55
"""Seconds; below the 60 of a test."""

KILLER = """\
import os, signal, sys
from pae_framework.training import progress

stage = os.environ["KILL_STAGE"]
update = progress.ProgressLine.update

def update_and_kill(self, done, note=""):
    update(self, done, note)
    if self.title == stage and done >= max(1, self.total // 2):
        os.kill(os.getpid(), signal.SIGKILL)

progress.ProgressLine.update = update_and_kill
if stage == "report":
    from pae_framework.report import html
    from pae_framework.stages import report
    def kill(content):
        os.kill(os.getpid(), signal.SIGKILL)
    report.render = kill

from pae_framework.cli.app import main
sys.argv = ["pae", *sys.argv[1:]]
main()
"""


def pae(*arguments: str | Path, cwd: Path) -> Result:
    """Run a command in a new process."""
    return run_process("-m", "pae_framework", *arguments, cwd=cwd, timeout=LIMIT)


def pae_killed_in(stage: str, *arguments: str | Path, cwd: Path) -> int:
    """Exit code of a command that kills itself (SIGKILL) half-way through a stage."""
    env = {**os.environ, "KILL_STAGE": stage}
    return run_process("-c", KILLER, *arguments, cwd=cwd, timeout=LIMIT, env=env).code
