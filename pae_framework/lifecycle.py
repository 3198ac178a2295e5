"""What the life-cycle hooks are told about a run, its stages, metrics and files. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class RunInfo:
    """A run."""

    name: str
    """The recipe's ``name``."""
    path: Path
    """Directory of the run, absolute. It stays the same when an interrupted run resumes."""
    recipe: Mapping[str, Any]
    """Every value of the recipe, defaults included, in JSON types."""
    command: str
    """What the user typed, or what the job was submitted with."""


@dataclass(frozen=True)
class RunResult:
    """How the work of one process on a run ended."""

    state: Literal["done", "stopped", "failed"]
    """``done``: the process did all stages that it was to do; ``stopped``: on request, or by
    Ctrl-C."""
    complete: bool
    """Whether all stages of the run are done, including those of other processes and jobs."""
    error: str | None = None
    """The reason if it failed."""


@dataclass(frozen=True)
class StageInfo:
    """One stage of a run."""

    name: str
    """``tokenizer``, for example."""
    fingerprint: str
    """Hash of everything that determines its result."""
    path: Path
    """Folder of the stage, absolute; the runs of a sweep share folders of common stages."""
    started: str = ""
    """Local time when it began, in ISO 8601. A stage that resumes keeps it; ``--again`` begins the
    stage anew."""


@dataclass(frozen=True)
class StageFailure:
    """Why a stage did not finish."""

    state: Literal["stopped", "failed"]
    error: str


@dataclass(frozen=True)
class LoggedMetrics:
    """A line of a training's log."""

    step: int
    """Optimizer steps taken; the first is 1."""
    values: Mapping[str, float]
    """Mean loss terms of the steps since the line before, learning rates, images per second, and
    the share of time spent waiting for data."""
    resumed_from: int
    """The step that the training resumed from in this process; 0: it began here.

    Lines up to this step were logged by another process, and
    :func:`pae_framework.metrics_file.read_log` reads them from ``metrics.jsonl`` in the folder of
    the stage. Later ones may have been logged before a kill; they are then logged again.
    """


@dataclass(frozen=True)
class Artifact:
    """A result file of a finished stage."""

    name: str
    """Its path relative to the folder of the stage, with ``/``."""
    path: Path
    """Absolute."""
    size: int
    """In bytes."""
