"""What the built-in trackers share: one run of the tracker for each run directory.

Each line of a log is one row with the step of its stage as an axis of its own. A row is sent once,
whatever happens to the run.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pae_framework import hookimpl
from pae_framework.contracts import Tracker
from pae_framework.lifecycle import Artifact, LoggedMetrics, RunInfo, RunResult, StageInfo
from pae_framework.metrics_file import METRICS, read_log
from pae_trackers.config import RunTrackerConfig
from pae_trackers.state import SentState

SUFFIXES = {".html", ".png", ".json", ".csv", ".md"}
"""Suffixes of the result files that are stored with a tracker's run: reports, pictures, metrics."""
_RESULTS = ("evaluate", "results.json")
"""Stage and file of the metrics of a run."""


class RunTracker(Tracker):
    """Follows a run with a service for experiment tracking."""

    config: RunTrackerConfig
    name: str
    """Of the tracker, for its folder."""

    _is_open = False

    @hookimpl
    def pae_run_started(self, run: RunInfo) -> None:
        """Open the tracker's run, or the one that an earlier process opened."""
        self._state = SentState(run.path, f"{self.name}-{self.config.project}")
        self._rows = self._state.rows()
        self._files: list[Artifact] = []
        self._summary: dict[str, float] = {}
        self.open(run, self._state.id(), self._state.folder)
        self._is_open = True

    @hookimpl
    def pae_metrics_logged(self, stage: StageInfo, metrics: LoggedMetrics) -> None:
        """Send a line, after those that an earlier process logged and did not send."""
        if not self._is_open:
            return
        if self._state.last_step(stage) < metrics.resumed_from:
            self._send_unsent(stage, metrics.resumed_from)
        if self._state.last_step(stage) < metrics.step:
            self._send(stage, metrics.step, metrics.values)

    @hookimpl
    def pae_artifact_written(self, stage: StageInfo, artifact: Artifact) -> None:
        """Keep a result for the end of its stage."""
        if self._is_open and artifact.path.suffix in SUFFIXES:
            self._files.append(artifact)
        if self._is_open and (stage.name, artifact.name) == _RESULTS:
            self._summary = read_results(artifact.path)

    @hookimpl
    def pae_stage_finished(self, run: RunInfo, stage: StageInfo) -> None:
        """Send lines that could not be sent; store reports and pictures, and metrics of the run."""
        if not self._is_open:
            return
        try:
            self._send_unsent(stage)
        finally:
            self._store_results(run, stage)

    @hookimpl
    def pae_stage_failed(self, stage: StageInfo) -> None:
        """Send lines that could not be sent."""
        if self._is_open:
            self._send_unsent(stage)

    @hookimpl
    def pae_run_finished(self, result: RunResult) -> None:
        """Close the tracker's run; a later process may open it again."""
        if self._is_open:
            self.close(failed=result.state == "failed")

    def _store_results(self, run: RunInfo, stage: StageInfo) -> None:
        files, self._files = self._files, []
        if files:
            self.store(f"{run.name}-{stage.name}", files)
        if self._summary:
            self.summarize(self._summary)
            self._summary = {}

    def _send_unsent(self, stage: StageInfo, last: float = math.inf) -> None:
        """Send the lines of the log after the last sent one, up to a step."""
        sent = self._state.last_step(stage)
        for record in read_log(stage.path / METRICS):
            if sent < record["step"] <= last:
                values = {key: value for key, value in record.items() if key != "step"}
                self._send(stage, int(record["step"]), values)

    def _send(self, stage: StageInfo, step: int, values: Mapping[str, float]) -> None:
        row = {f"{stage.name}/{key}": value for key, value in values.items()}
        self.log({**row, f"{stage.name}/step": step}, self._rows)
        self._rows += 1
        self._state.add(stage, step)

    @abstractmethod
    def open(self, run: RunInfo, identity: str, folder: Path) -> None:
        """Open the run with this id.

        Args:
            run: the run that it follows.
            identity: the id.
            folder: for files of the tracker.
        """

    @abstractmethod
    def log(self, values: Mapping[str, float], row: int) -> None:
        """Send a row; rows of one run are numbered from 0."""

    @abstractmethod
    def store(self, name: str, files: Sequence[Artifact]) -> None:
        """Store files under a name."""

    @abstractmethod
    def summarize(self, values: Mapping[str, float]) -> None:
        """Send the metrics of the run."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Close the run."""


def read_results(path: Path) -> dict[str, float]:
    """Value of each metric in a file of results, by its name and what it was measured at."""
    found: dict[str, float] = {}
    for metric in json.loads(path.read_bytes()):
        at = ",".join(f"{key}={value}" for key, value in (metric.get("at") or {}).items())
        value: Any = metric["value"]
        if value is not None:
            found[f"{metric['name']}@{at}" if at else metric["name"]] = value
    return found
