"""Which processes of this machine run."""

from __future__ import annotations

import os
from pathlib import Path


def process_start(number: int) -> str | None:
    """When a process started, in the clock of its machine; None if it does not run.

    A killed process that its parent has not waited for yet does not run. Where the system does not
    say when a process started, the answer is "unknown".
    """
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    try:
        status = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        # The third field and those after it; the second may contain spaces.
        fields = status.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return "unknown"
