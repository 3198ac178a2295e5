"""Run `pae` in a new process."""

from __future__ import annotations

from pathlib import Path

from pae_framework.testing.pytest import Result, run_process

LIMIT = 55
"""Seconds; below the 60 of a test."""


def pae(*arguments: str | Path, cwd: Path) -> Result:
    """Run a command in a new process."""
    return run_process("-m", "pae_framework", *arguments, cwd=cwd, timeout=LIMIT)
