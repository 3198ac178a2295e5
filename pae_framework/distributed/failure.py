"""The failure of one process, told to the others. No torch."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb

from pae_framework.errors import INTERRUPTED, PaeError, RunError
from pae_framework.system.file_errors import describe_system_error


@dataclass(frozen=True)
class Failure:
    """Why a process failed.

    Args:
        rank: of the process.
        host: its machine.
        message: the reason, one line or more.
        exit_code: that the command should end with.
        is_silent: whether the process said nothing: it was killed, hangs, or its machine failed.
    """

    rank: int
    host: str
    message: str
    exit_code: int = 1
    is_silent: bool = False

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Failure:
        """The failure of this process."""
        if isinstance(error, PaeError):
            return cls(rank, platform.node(), str(error), error.exit_code)
        if isinstance(error, OSError):
            return cls(rank, platform.node(), describe_system_error(error))
        reason = f": {error}" if str(error) else ""
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        return cls(rank, platform.node(), f"{type(error).__name__}{reason}", code)


class RankError(RunError):
    """One of several processes failed, and so did the stage.

    Args:
        failure: of that process.
        log: of that process; None: not named.
    """

    def __init__(self, failure: Failure, log: Path | None = None):
        where = f" (log: {log})" if log else ""
        super().__init__(f"rank {failure.rank} on {failure.host}: {failure.message}{where}")
        self.failure = failure
        self.exit_code = failure.exit_code


class LostContactError(RunError):
    """Another process cannot be reached, which may have failed."""


_COMMUNICATION = re.compile(
    r"gloo|nccl|process ?group|connection (reset|closed|refused)|TCPStore", re.I
)


def is_consequence(error: BaseException) -> bool:
    """Whether the error follows from the failure of another process.

    Looks at its causes too. torch's own errors of communication have several classes. gloo's have
    none: they are told by their text and by where they were raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RankError | LostContactError):
            return True
        if type(cause).__module__.startswith("torch") and type(cause).__name__.startswith("Dist"):
            return True
        if isinstance(cause, RuntimeError) and _COMMUNICATION.search(str(cause)):
            return _is_raised_by_communication(cause)
        cause = cause.__cause__
    return False


_COMMUNICATES = (
    "torch.distributed",
    "torch.nn.parallel",
    "torch.autograd",
    "pae_framework.distributed",
)
"""Modules that communicate; the backward pass does so in DDP and FSDP."""


def _is_raised_by_communication(error: BaseException) -> bool:
    """Whether the innermost frames, up to the first outside of torch, are of communication."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    for module in reversed(modules):
        if module.startswith(_COMMUNICATES):
            return True
        if module.partition(".")[0] != "torch":
            return False
    return False
