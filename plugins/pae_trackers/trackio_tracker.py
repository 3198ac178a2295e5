"""Follows a run with trackio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pae_framework.lifecycle import Artifact, RunInfo
from pae_trackers.config import TrackioConfig
from pae_trackers.run_tracker import RunTracker


class TrackioTracker(RunTracker):
    """One run of trackio for each run directory; each stage has a step axis."""

    config: TrackioConfig
    name = "trackio"

    def open(self, run: RunInfo, identity: str, folder: Path) -> None:
        """See the base class. A run of trackio is known by its name."""
        import trackio

        self._run = trackio.init(
            project=self.config.project,
            name=f"{run.name}-{identity}",
            resume="allow",
            space_id=self.config.space,
            config=dict(run.recipe),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, values: Mapping[str, float], row: int) -> None:
        """See the base class."""
        self._run.log(dict(values), step=row)

    def store(self, name: str, files: Sequence[Artifact]) -> None:
        """See the base class."""
        import trackio

        stored = trackio.Artifact(name, type="results")
        for file in files:
            stored.add_file(str(file.path), name=file.name)
        self._run.log_artifact(stored)

    def summarize(self, values: Mapping[str, float]) -> None:
        """See the base class."""
        self._run.log(dict(values))

    def close(self, failed: bool) -> None:
        """See the base class."""
        self._run.finish()
