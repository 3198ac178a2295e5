"""Run `pae` in a process of its own."""

from __future__ import annotations

from pathlib import Path

from forked import run_forked

from pae_framework.testing.pytest import Result, run_process

LIMIT = 150
"""Seconds; below the 180 of a test."""


def pae(*arguments: str | Path, cwd: Path) -> Result:
    """Run a command in a fork of a process that has imported everything; plots are empty."""
    return Result(*run_forked(*map(str, arguments), cwd=cwd, timeout=LIMIT))


def pae_as_a_user(*arguments: str | Path, cwd: Path) -> Result:
    """Run a command in a new process."""
    return run_process("-m", "pae_framework", *arguments, cwd=cwd, timeout=LIMIT)
