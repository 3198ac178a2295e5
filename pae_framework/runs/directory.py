"""The directory of a run, readable with ordinary tools.

::

    RUN/
      run.json            name, plan (stage -> fingerprint), command
      recipe.yaml         the recipe as given;  overrides.txt  what the command line changed
      resolved.yaml       every value of it; `pae run RUN/resolved.yaml` repeats the run
      environment.json    machine, packages, plugins
      stages/             one folder per stage and fingerprint: nothing is overwritten by an edit
      encoder -> stages/encoder-1f2e3d4c5b6a   the one this recipe stands for; and so on
      report.html         -> report/report.html

A sweep has ``members/<variant>-seed<k>/`` besides, each a run whose links lead into the sweep's own
``stages/``: stages that members have in common are there once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pae_framework.errors import RunError, UsageError
from pae_framework.files import point, read_json, write_json, write_text
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import StageRecord

RECORD = "run.json"
REPORT = "report.html"


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory; ``store`` is where its stages' folders lie."""

    path: Path
    store: Path

    @classmethod
    def at(cls, path: Path, store: Path | None = None) -> RunDirectory:
        """A run at ``path``, with its own store unless a sweep shares one."""
        return cls(path, store or path / "stages")

    def claim(self, name: str, sweep: bool = False) -> None:
        """Check that the directory is free for a run of this name, or already its own.

        Raises:
            UsageError: it holds another recipe's run, or files that are no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(
                f"{self.path} is a file, not a run directory; choose another --run-dir"
            )
        record = self.path / RECORD
        if record.exists():
            info = read_json(record)
            if info.get("name") != name or ("members" in info) != sweep:
                found = "sweep" if "members" in info else "run"
                raise UsageError(
                    f"{self.path} holds a {found} of the recipe {info.get('name')!r}, not a "
                    f"{'sweep' if sweep else 'run'} of {name!r}; choose another --run-dir, or give "
                    "the recipe its own name"
                )
        elif self.path.exists() and any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and holds no run; choose another --run-dir")

    def write(self, loaded: LoadedRecipe, stages: list[PlannedStage], command: str) -> None:
        """Describe the run before its first step; drop links to stages of an earlier plan."""
        plan = [
            {
                "stage": stage.name,
                "fingerprint": stage.fingerprint,
                "folder": stage.folder,
                "inputs": list(stage.inputs),
            }
            for stage in stages
        ]
        info: dict[str, Any] = {"name": loaded.recipe.name, "command": command, "plan": plan}
        info["store"] = os.path.relpath(self.store, self.path)
        write_description(self.path, info, loaded)
        self._drop_old_links(stages)

    def _drop_old_links(self, stages: list[PlannedStage]) -> None:
        """A link to a stage of an earlier plan would present its results as this plan's."""
        planned = {stage.name: self.store / stage.folder for stage in stages}
        for name in STAGES:
            link = self.path / name
            if link.is_symlink() and (
                name not in planned or link.resolve() != planned[name].resolve()
            ):
                link.unlink()
                (self.path / REPORT).unlink(missing_ok=True)

    @property
    def info(self) -> dict[str, Any]:
        """Contents of run.json.

        Raises:
            UsageError: there is no run here.
        """
        path = self.path / RECORD
        if not path.is_file():
            raise UsageError(f"{self.path} holds no run (no run.json); see `pae run --help`")
        found = read_json(path)
        assert isinstance(found, dict)
        return found

    def stage(self, planned: PlannedStage) -> StageRecord:
        """The record of a stage in the store."""
        return StageRecord(self.store / planned.folder)

    def link(self, planned: PlannedStage) -> None:
        """Let ``RUN/<stage>`` lead to the stage's folder."""
        point(self.path / planned.name, self.store / planned.folder)

    def link_report(self) -> None:
        """Let ``RUN/report.html`` lead to the report stage's page."""
        point(self.path / REPORT, self.path / "report" / REPORT)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; a second process on the same directory is refused.

        Raises:
            RunError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another process is working on {self.path}; wait for it or stop it first"
            ) from None
        try:
            yield
        finally:
            lock.release()


def write_description(path: Path, info: dict[str, Any], loaded: LoadedRecipe) -> None:
    """Write what a run or a sweep is; its record first, which makes the directory its own."""
    write_json(path / RECORD, info)
    write_text(path / "recipe.yaml", loaded.text)
    write_text(path / "overrides.txt", "".join(f"{item}\n" for item in loaded.overrides))
    write_text(path / "resolved.yaml", loaded.resolved_yaml())
    write_json(path / "environment.json", describe_environment(loaded.registry))


def stages_dir_of(path: Path) -> Path | None:
    """Where a run that exists keeps its stages; None for a new one, and for a sweep."""
    record = path / RECORD
    store = read_json(record).get("store") if record.is_file() else None
    return path / store if store else None
