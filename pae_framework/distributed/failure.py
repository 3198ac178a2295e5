"""The failure of one process, told to the others. No torch."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from pae_framework.errors import PaeError, RunError


@dataclass(frozen=True)
class Failure:
    """Why a process failed.

    Args:
        rank: of the process.
        host: its machine.
        message: the reason, one line or more.
        exit_code: that the command should end with.
    """

    rank: int
    host: str
    message: str
    exit_code: int = 1

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Failure:
        """The failure of this process."""
        if isinstance(error, PaeError):
            return cls(rank, platform.node(), str(error), error.exit_code)
        return cls(rank, platform.node(), f"{type(error).__name__}: {error}")


class OtherRankError(RunError):
    """Another process failed; this one cannot go on."""

    def __init__(self, failure: Failure):
        super().__init__(f"rank {failure.rank} on {failure.host}: {failure.message}")
        self.failure = failure
        self.exit_code = failure.exit_code


class LostContactError(RunError):
    """Another process cannot be reached, which may have failed."""


_COMMUNICATION = re.compile(
    r"gloo|nccl|process ?group|connection (reset|closed|refused)|TCPStore", re.I
)


def is_consequence(error: BaseException) -> bool:
    """Whether the error, or one that caused it, says that another process failed.

    torch's own errors of communication have several classes, and gloo's have none.
    """
    if error.__cause__ is not None and is_consequence(error.__cause__):
        return True
    if isinstance(error, OtherRankError | LostContactError):
        return True
    own = type(error).__name__.startswith("Dist")
    return own or (isinstance(error, RuntimeError) and bool(_COMMUNICATION.search(str(error))))
