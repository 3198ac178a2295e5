"""The runs of a folder, one line each. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pae_framework.errors import PaeError
from pae_framework.report.metrics import MetricFields, group_of, headline
from pae_framework.runs.directory import RECORD, RunDirectory
from pae_framework.runs.run_metrics import read_metrics
from pae_framework.runs.stage_status import StageStatus
from pae_framework.runs.status import run_status

_UNFINISHED = ("running", "failed", "damaged", "stopped")
"""States that tell more than how many stages are done, the most telling first."""


@dataclass(frozen=True)
class ListedRun:
    """A run or a sweep of a folder."""

    path: str
    """Absolute."""
    state: str
    """``done``, ``running``, ``failed``, ``stopped``, ``pending`` or ``damaged``."""
    done: int
    """Stages that are done, of all members of a sweep."""
    stages: int
    """Their number."""
    changed: str
    """When a stage last recorded something, in UTC, ISO 8601."""
    age_seconds: float
    """Since then."""
    metric: MetricFields | None
    """The first metric of generation, else the first of all; None if none is measured."""
    error: str = ""
    """Why it cannot be read."""


def list_runs(folder: Path, now: datetime | None = None) -> list[ListedRun]:
    """The runs and sweeps directly inside a folder, the last changed first."""
    now = now or datetime.now(UTC)
    found = [_listed(record.parent, now) for record in folder.glob(f"*/{RECORD}")]
    return sorted(found, key=lambda run: (run.age_seconds, run.path))


def _listed(path: Path, now: datetime) -> ListedRun:
    rows, metric, error = list[StageStatus](), None, ""
    try:
        rows = [row for member in run_status(path).values() for row in member]
        metric = _metric(path)
    except PaeError as problem:
        error = str(problem)
    changed = _changed(path, rows)
    return ListedRun(
        path=str(path.absolute()),
        state="damaged" if error else _state([row.state for row in rows]),
        done=sum(row.state == "done" for row in rows),
        stages=len(rows),
        changed=changed.isoformat(timespec="seconds"),
        age_seconds=max(0.0, round((now - changed).total_seconds(), 1)),
        metric=metric,
        error=error,
    )


def _state(states: Sequence[str]) -> str:
    if states and all(state == "done" for state in states):
        return "done"
    return next((state for state in _UNFINISHED if state in states), "pending")


def _changed(path: Path, rows: Iterable[StageStatus]) -> datetime:
    records = [path / RECORD, *(Path(row.folder) / "stage.json" for row in rows)]
    times = [record.stat().st_mtime for record in records if record.is_file()]
    return datetime.fromtimestamp(max(times, default=0.0), UTC)


def _metric(path: Path) -> MetricFields | None:
    info = RunDirectory.at(path).info
    if "members" in info:
        return None
    metrics = headline(read_metrics(RunDirectory.at(path, path / info["store"])) or [])
    of_samples = (metric for metric in metrics if group_of(metric) == "generation")
    return next(of_samples, next(iter(metrics), None))
