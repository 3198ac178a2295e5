"""State and progress of a run, read from its directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.errors import RunError
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.record import StageRecord


@dataclass(frozen=True)
class StageStatus:
    """State and progress of one stage."""

    stage: str
    state: str
    """As in its record; ``damaged`` if that cannot be read."""
    progress: str
    """``300/900``, or the file its weights were loaded from."""
    time: str
    """Working time."""
    folder: str
    error: str
    """The reason, if the stage failed or its record is damaged."""


def run_status(path: Path) -> dict[str, list[StageStatus]]:
    """Stages by run; for a sweep, by every member that was started.

    Raises:
        UsageError: ``path`` is not a run directory.
        RunError: its ``run.json`` is damaged.
    """
    info = RunDirectory.at(path).info
    if "members" not in info:
        return {info["name"]: _stages(path)}
    started = [name for name in info["members"] if (path / "members" / name / "run.json").is_file()]
    return {name: _stages(path / "members" / name) for name in started}


def _stages(path: Path) -> list[StageStatus]:
    info = RunDirectory.at(path).info
    return [_status(entry, path / info["store"] / entry["folder"]) for entry in info["plan"]]


def _status(entry: dict[str, str], folder: Path) -> StageStatus:
    record = StageRecord(folder)
    try:
        info, state = record.info, record.state
    except RunError as error:
        info, state = {"error": str(error)}, "damaged"
    return StageStatus(
        stage=entry["stage"],
        state=state,
        progress=_progress(info),
        time=f"{info['seconds']:.0f} s" if "seconds" in info else "",
        folder=str(folder.resolve()),
        error=str(info.get("error") or "") if state in ("failed", "damaged") else "",
    )


def _progress(info: dict[str, Any]) -> str:
    if progress := info.get("progress"):
        return f"{progress['done']}/{progress['total']}"
    return f"from {info['weights']}" if "weights" in info else ""
