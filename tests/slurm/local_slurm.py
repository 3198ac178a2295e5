"""Commands of the Slurm that ``scripts/local-slurm up`` started."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 60
"""How long a command, or a change of a job, may take."""


def lack() -> str | None:
    """Why there is no such Slurm; None if there is one."""
    start = "start one with: scripts/local-slurm up"
    if "SLURM_CONF" not in os.environ or shutil.which("sinfo") is None:
        return f"SLURM_CONF is not set, or there is no sinfo; {start}"
    try:
        answer = subprocess.run(
            ["sinfo", "--noheader"], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"sinfo does not answer; {start}"
    if answer.returncode:
        return f"sinfo: {answer.stderr.strip()}; {start}"
    if "closed" not in answer.stdout:  # tests must not disturb a cluster that people use
        return f"SLURM_CONF is that of another Slurm; {start}"
    return None


class LocalSlurm:
    """Runs commands and jobs; ends its jobs when it is closed."""

    def __init__(self) -> None:
        self._jobs: list[str] = []

    def output(self, *command: str | Path, cwd: Path | None = None) -> str:
        """What a command prints; it must succeed."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=10 * SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, folder: Path, script: str, *options: str) -> str:
        """Submit a batch job whose output is ``folder/log``; returns its id."""
        log = ("--output", str(folder / "log"), "--open-mode=append")
        job = self.output("sbatch", "--parsable", *log, *options, "--wrap", script, cwd=folder)
        self._jobs.append(job)
        return job

    def state(self, job: str) -> str:
        """A job's state, such as ``RUNNING``."""
        return self.field(job, "JobState")

    def field(self, job: str, name: str) -> str:
        """A field of what ``scontrol show job`` says."""
        words = self.output("scontrol", "show", "job", job).split()
        return next(word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}="))

    def wait_for(self, job: str, state: str) -> None:
        """Wait until a job has a state."""
        self.until(lambda: self.state(job) == state, lambda: f"{job}: {self.state(job)}")

    def go_on(self, job: str) -> None:
        """Start a requeued job at once; Slurm would let it wait for two minutes."""
        self.wait_for(job, "PENDING")
        time.sleep(2)  # Slurm does not launch a job in the second in which it was requeued
        self.output("scontrol", "update", f"JobId={job}", "StartTime=now")

    def until(
        self, condition: Callable[[], bool], problem: Callable[[], str] = lambda: "no such change"
    ) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, problem()
            time.sleep(0.2)

    def close(self) -> None:
        """End all jobs."""
        for job in self._jobs:
            subprocess.run(["scancel", job], capture_output=True, check=False)
