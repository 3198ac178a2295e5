"""How Slurm's commands are run, and what they inherit. No torch."""

from __future__ import annotations

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
_FORMATS = re.compile(r"(SQUEUE|SINFO|SACCT|SACCTMGR|SCONTROL|SCANCEL)_.+")
"""A user's defaults of the commands, which filter and reshape their answers."""
_OF_THE_SITE = {"SLURM_CONF", "SLURM_JWT"}


class SlurmUnknownError(Exception):
    """Slurm cannot be asked; the text says why."""


def ask_slurm(*command: str, seconds: float | None = None) -> str:
    """The answer of one of Slurm's commands, in English, whatever the user's environment.

    Args:
        *command: its words.
        seconds: how long it may take; None: ``TIMEOUT_SECONDS``.

    Raises:
        SlurmUnknownError: the command is not on PATH, does not answer, or fails.
    """
    name, limit = command[0], TIMEOUT_SECONDS if seconds is None else seconds
    if shutil.which(name) is None:
        raise SlurmUnknownError(f"{name} is not on PATH")
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit,
            check=True,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise SlurmUnknownError(f"{name} did not answer within {limit:g} s") from None
    except subprocess.CalledProcessError as error:
        code = error.returncode
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        reason = (error.stderr.strip().splitlines() or [end])[-1]
        raise SlurmUnknownError(f"{name} failed: {reason}") from None
    except OSError as error:
        raise SlurmUnknownError(f"{name} cannot be run: {error}") from None
    return answer.stdout


def slurm_rows(answer: str, command: str, fields: int) -> list[list[str]]:
    """The lines of an answer as fields separated by ``|``; a line may have more of them.

    Raises:
        SlurmUnknownError: a line has fewer, so it is no answer to what was asked.
    """
    rows = [[field.strip() for field in line.split("|")] for line in answer.splitlines() if line]
    for row in rows:
        if len(row) < fields:
            raise unreadable(command, "|".join(row))
    return rows


def unreadable(command: str, answer: str) -> SlurmUnknownError:
    """The error for an answer that is none."""
    return SlurmUnknownError(f"the answer of {command} cannot be read: {answer[:80]!r}")


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


def _environment() -> dict[str, str]:
    kept = [name for name in os.environ if not _FORMATS.fullmatch(name)]
    own = set(_allocation_variables(kept))
    return {name: os.environ[name] for name in kept if name not in own} | {"LC_ALL": "C"}


def _allocation_variables(names: Sequence[str]) -> list[str]:
    return [name for name in names if _OWN_VARIABLES.fullmatch(name) and name not in _OF_THE_SITE]
