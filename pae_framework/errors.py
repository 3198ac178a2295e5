"""What can go wrong, and which exit code says so.

A user's mistake gets one message: what is wrong, where, and what would be right. The command line
prints it without a traceback (``--debug`` shows one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PaeError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1


class RunError(PaeError):
    """A run that was rightly described failed while it worked."""


class StoppedError(RunError):
    """A run was asked to stop, and did so where it can go on."""


class CheckpointError(RunError):
    """A file of weights or of training state is damaged or belongs to something else."""


class UsageError(PaeError):
    """The command or what it was given is wrong; nothing was written."""

    exit_code = 2


class DataError(UsageError):
    """Images, labels or latents that are missing, unreadable or of the wrong shape."""


class PluginError(PaeError):
    """A plugin is broken, and something asked for needs it."""

    exit_code = 3


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe.

    ``path`` is the key path (``tokenizer.encoder.patch``), ``where`` the place it was written
    (``recipes/a.yaml:12:5`` or ``command line``), ``hint`` what would be right.
    """

    message: str
    path: str = ""
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        key = f"{self.path}: " if self.path else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{key}{self.message}{hint}"


class RecipeError(UsageError):
    """Everything wrong with a recipe, at once."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
