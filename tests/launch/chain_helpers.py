"""Running the whole chain in a process of its own, and ending it where a test wants."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def pae(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", "from pae_framework.cli.app import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=280
    )


def pae_killed_in(stage: str, *arguments: str | Path, cwd: Path, env: dict[str, str]) -> int:
    """The same, killed by SIGKILL half-way through a stage; returns its exit code."""
    finished = subprocess.run(
        [sys.executable, "-c", KILLER, *map(str, arguments)],
        cwd=cwd,
        env={**env, "KILL_STAGE": stage},
        capture_output=True,
        text=True,
        timeout=280,
    )
    return finished.returncode
