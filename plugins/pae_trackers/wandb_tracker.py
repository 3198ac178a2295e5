"""Follows a run with Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pae_framework.lifecycle import Artifact, RunInfo
from pae_trackers.config import WandbConfig
from pae_trackers.run_tracker import RunTracker


class WandbTracker(RunTracker):
    """One run of W&B for each run directory; each stage has a step axis."""

    config: WandbConfig
    name = "wandb"

    def open(self, run: RunInfo, identity: str, folder: Path) -> None:
        """See the base class."""
        import wandb

        config = self.config
        self._axes: set[str] = set()
        self._run = wandb.init(
            id=identity,
            resume=None if config.mode == "offline" else "allow",
            project=config.project,
            entity=config.entity,
            name=run.name,
            tags=list(config.tags) or None,
            config=dict(run.recipe),
            dir=str(folder),
            mode=config.mode,
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, values: Mapping[str, float], row: int) -> None:
        """See the base class."""
        (stage,) = {key.partition("/")[0] for key in values}
        if stage not in self._axes:
            self._axes.add(stage)
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log(dict(values), step=row)

    def store(self, name: str, files: Sequence[Artifact]) -> None:
        """See the base class."""
        import wandb

        stored = wandb.Artifact(name, type="results")
        for file in files:
            stored.add_file(str(file.path), name=file.name)
        self._run.log_artifact(stored)

    def summarize(self, values: Mapping[str, float]) -> None:
        """See the base class."""
        self._run.summary.update(dict(values))

    def close(self, failed: bool) -> None:
        """See the base class."""
        self._run.finish(exit_code=int(failed))
