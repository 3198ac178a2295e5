"""What Slurm's commands say about jobs, and what they are told. No torch."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

TIMEOUT_SECONDS = 30
"""A controller that is down answers late or never."""
_OWN_VARIABLES = re.compile(
    r"(SLURM|SLURMD|SRUN|SBATCH|SUBMITIT)_.+"
    r"|RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT"
)
"""Variables that describe an allocation, or the place of a process in one."""
_OF_THE_SITE = {"SLURM_CONF"}


class SlurmUnknownError(Exception):
    """Slurm cannot be asked; the text says why."""


def ask_slurm(*command: str, seconds: float = TIMEOUT_SECONDS) -> str:
    """The answer of one of Slurm's commands.

    Args:
        *command: its words.
        seconds: how long it may take.

    Raises:
        SlurmUnknownError: the command is not on PATH, does not answer, or fails.
    """
    name = command[0]
    if shutil.which(name) is None:
        raise SlurmUnknownError(f"{name} is not on PATH")
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=True
        )
    except subprocess.TimeoutExpired:
        raise SlurmUnknownError(f"{name} did not answer within {seconds:g} s") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise SlurmUnknownError(f"{name} failed: {reason}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SlurmUnknownError(f"{name} cannot be run: {error}") from None
    return answer.stdout


def queued_jobs() -> dict[str, str]:
    """State of each job of this user that has not ended, by its id: ``12``, ``12_3``.

    Raises:
        SlurmUnknownError: Slurm cannot be asked.
    """
    user = getpass.getuser()
    answer = ask_slurm("squeue", "--noheader", "--array", f"--user={user}", "--format=%i|%T")
    pairs = (line.strip().partition("|") for line in answer.splitlines() if line.strip())
    return {job: state for job, _, state in pairs}


def job_state(job: str) -> str:
    """State of a job that has not been forgotten: ``RUNNING``, ``COMPLETING``, ``PENDING``, ...

    Raises:
        SlurmUnknownError: Slurm cannot be asked, or has forgotten the job.
    """
    answer = ask_slurm("scontrol", "--oneliner", "show", "job", job)
    found = re.search(r"\bJobState=(\S+)", answer)
    if found is None:
        raise SlurmUnknownError("the answer of scontrol names no JobState")
    return found[1]


def requeue(job: str) -> None:
    """Put a running job back into the queue, under its id; its processes are ended.

    Raises:
        SlurmUnknownError: Slurm does not do it.
    """
    ask_slurm("scontrol", "requeue", job)


def foreign_settings(environment: Mapping[str, str]) -> list[str]:
    """Names of the user's variables with defaults of sbatch, which a profile replaces."""
    return sorted(name for name in environment if name.startswith("SBATCH_"))


@contextmanager
def outside_allocations(extra: Mapping[str, str]) -> Iterator[None]:
    """Submit inside this block: what is submitted inherits nothing of an allocation.

    Args:
        extra: variables to set meanwhile.
    """
    before = dict(os.environ)
    for name in _allocation_variables(list(before)):
        del os.environ[name]
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _allocation_variables(names: Sequence[str]) -> list[str]:
    return [name for name in names if _OWN_VARIABLES.fullmatch(name) and name not in _OF_THE_SITE]
