"""Running the whole chain in a process of its own, and ending it where a test wants."""

from __future__ import annotations

import os
from pathlib import Path

from pae_framework.testing.pytest import Result, run_process

LIMIT = 55
"""Seconds; a test has 60."""

KILLER = """\
import os, signal, sys
from pae_framework.training import progress

stage = os.environ["KILL_STAGE"]
update = progress.ProgressLine.update

def deadly(self, done, note=""):
    update(self, done, note)
    if self.title == stage and done >= max(1, self.total // 2):
        os.kill(os.getpid(), signal.SIGKILL)

progress.ProgressLine.update = deadly
if stage == "report":
    from pae_framework.report import html
    from pae_framework.stages import report
    def fatal(content):
        os.kill(os.getpid(), signal.SIGKILL)
    report.render = fatal

from pae_framework.cli.app import main
sys.argv = ["pae", *sys.argv[1:]]
main()
"""


def pae(*arguments: str | Path, cwd: Path) -> Result:
    """The command line in a process of its own."""
    return run_process("-m", "pae_framework", *arguments, cwd=cwd, timeout=LIMIT)


def pae_killed_in(stage: str, *arguments: str | Path, cwd: Path) -> int:
    """The same, killed by SIGKILL half-way through a stage; returns its exit code."""
    env = {**os.environ, "KILL_STAGE": stage}
    return run_process("-c", KILLER, *arguments, cwd=cwd, timeout=LIMIT, env=env).code
