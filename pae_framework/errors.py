"""Error types and their exit codes.

A user error gets one message: what is wrong, where, and how to fix it. The command line prints it
without a traceback; ``--debug`` shows one.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SAVED = 75
"""Exit code: saved, and to be started again (``EX_TEMPFAIL``)."""
INTERRUPTED = 128 + signal.SIGINT
EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "a valid run failed, or what was asked for is not there",
    2: "wrong input: a recipe, an option or a file",
    3: "a plugin broke its contract or does not load",
    SAVED: "saved, and to be started again: SIGUSR1 or SIGUSR2, or a job that is requeued",
    128 + signal.SIGHUP: "saved after its terminal was closed (SIGHUP)",
    INTERRUPTED: "stopped by Ctrl-C",
    128 + signal.SIGTERM: "stopped by SIGTERM",
}
"""What the exit codes of the commands mean."""


class PaeError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1


class RunError(PaeError):
    """A valid run failed during execution."""


class StoppedError(RunError):
    """Stopped on request; the run can be resumed.

    Args:
        message: what was stopped, and where.
        number: the signal that asked for it; None: another process was asked or has ended.
    """

    exit_code = SAVED

    def __init__(self, message: str, number: int | None = None):
        super().__init__(message)
        if number is not None and 128 + number in EXIT_CODES:
            self.exit_code = 128 + number


class WriteError(RunError):
    """A file or folder cannot be written; the message says why and what to do."""


class CheckpointError(RunError):
    """A file of weights or of training state is damaged or belongs to something else."""


class UsageError(PaeError):
    """The command or its arguments are invalid; nothing was written."""

    exit_code = 2


class DataError(UsageError):
    """Images, labels or latents are missing, unreadable or of the wrong shape."""


class PluginError(PaeError):
    """A plugin that is needed is broken."""

    exit_code = 3


@dataclass(frozen=True)
class Problem:
    """One problem of a recipe."""

    message: str
    """The fact: what was found and what was expected."""
    path: str = ""
    """Key path: ``tokenizer.encoder.patch``."""
    where: str = ""
    """Position: ``recipes/a.yaml:12:5`` or ``command line``."""
    hint: str = ""
    """The remedy, such as ``set <key>=<value>``."""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        key = f"{self.path}: " if self.path else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{key}{self.message}{hint}"


@dataclass(frozen=True)
class Inconsistency:
    """A conflict between two values of a recipe, each of which is valid alone."""

    path: tuple[str | int, ...]
    """The key to report it at."""
    message: str
    """The fact: the value found and what it conflicts with."""
    hint: str = ""
    """The remedy: ``set <key>=<value>``."""


class RecipeError(UsageError):
    """All problems of a recipe."""

    subject = "the recipe"

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ProfileError(RecipeError):
    """All problems of a profile, or of running a recipe with it."""

    subject = "the profile"
