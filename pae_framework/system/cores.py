"""CPU cores of this process. No torch."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """CPU cores that this process may use; 1 if unknown."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def threads_per_process(processes: int) -> int:
    """Threads of each of several processes that share the cores of this one; at least 1."""
    return max(1, usable_cores() // processes)
