"""The directory of a run, readable with ordinary tools.

::

    RUN/
      run.json            name, plan (stage -> fingerprint), command
      recipe.yaml         the recipe file as given;  overrides.txt  overrides of the command line
      resolved.yaml       the recipe with all values; `pae run RUN/resolved.yaml` repeats the run
      environment.json    machine, packages, plugins
      stages/             one folder per stage and fingerprint; an edit overwrites nothing
      encoder -> stages/encoder-1f2e3d4c5b6a   the stage that this recipe uses; one link per stage
      report.html         -> report/report.html

A sweep also has ``members/<variant>-seed<k>/``. Each is a run whose links lead into the sweep's own
``stages/``, so members share the stages they have in common.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.errors import UsageError
from pae_framework.file_errors import folder_problem
from pae_framework.files import point, read_json, write_json, write_text
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.locks import holding
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import StageRecord

RECORD = "run.json"
REPORT = "report.html"


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory; ``store`` holds the folders of its stages."""

    path: Path
    store: Path

    @classmethod
    def at(cls, path: Path, store: Path | None = None) -> RunDirectory:
        """A run at ``path``; its store is ``path / "stages"`` unless a sweep shares one."""
        return cls(path, store or path / "stages")

    def claim(self, name: str, sweep: bool = False) -> None:
        """Check that the directory is empty, or holds a run or sweep of this name.

        Raises:
            UsageError: it holds a run of another recipe, or other files, or cannot be written.
        """
        require_folder(self.path, "--run-dir")
        problem = None
        if (self.path / RECORD).exists():
            info = read_json(self.path / RECORD)
            if info.get("name") != name or ("members" in info) != sweep:
                found, wanted = ("sweep" if s else "run" for s in ("members" in info, sweep))
                problem = (
                    f"holds a {found} of the recipe {info.get('name')!r}, not a {wanted} of "
                    f"{name!r}"
                )
        elif self.path.exists() and any(not p.name.startswith(".") for p in self.path.iterdir()):
            problem = "is not empty and not a run directory"
        if problem is not None:
            raise UsageError(f"{self.path} {problem}; choose another --run-dir")

    def write(self, loaded: LoadedRecipe, stages: list[PlannedStage], command: str) -> None:
        """Write the description of the run; remove links to stages of an earlier plan."""
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
        self._remove_outdated_links(stages)

    def _remove_outdated_links(self, stages: list[PlannedStage]) -> None:
        """Remove links to results that this plan does not produce."""
        planned = {stage.name: self.store / stage.folder for stage in stages}
        for name in STAGES:
            link = self.path / name
            current = planned[name].resolve() if name in planned else None
            if link.is_symlink() and link.resolve() != current:
                link.unlink()
                (self.path / REPORT).unlink(missing_ok=True)

    @property
    def info(self) -> dict[str, Any]:
        """Contents of run.json.

        Raises:
            UsageError: the directory holds no run.
        """
        path = self.path / RECORD
        if not path.is_file():
            raise UsageError(f"{self.path} holds no run: it has no {RECORD}")
        found = read_json(path)
        assert isinstance(found, dict)
        return found

    def stage(self, planned: PlannedStage) -> StageRecord:
        """The record of a stage in the store."""
        return StageRecord(self.store / planned.folder)

    def link(self, planned: PlannedStage) -> None:
        """Make ``RUN/<stage>`` a link to the stage's folder."""
        point(self.path / planned.name, self.store / planned.folder)

    def link_report(self) -> None:
        """Make ``RUN/report.html`` a link to the page of the report stage."""
        point(self.path / REPORT, self.path / "report" / REPORT)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run, so that no second process works on the directory.

        Raises:
            RunError: another process holds the run.
        """
        with holding(self.path):
            yield


def require_folder(path: Path, option: str) -> None:
    """Check that files can be written into a folder, which need not exist.

    Raises:
        UsageError: they cannot; advises another value of the command line's ``option``.
    """
    if (problem := folder_problem(path)) is not None:
        raise UsageError(f"{problem}; choose another {option}")


def write_description(path: Path, info: dict[str, Any], loaded: LoadedRecipe) -> None:
    """Describe a run or sweep in its directory; its record comes first and claims the directory."""
    write_json(path / RECORD, info)
    write_text(path / "recipe.yaml", loaded.text)
    write_text(path / "overrides.txt", "".join(f"{item}\n" for item in loaded.overrides))
    write_text(path / "resolved.yaml", loaded.resolved_yaml())
    write_json(path / "environment.json", describe_environment(loaded.registry))


def stages_dir_of(path: Path) -> Path | None:
    """Folder of the stages of an existing run; None for a new run and for a sweep."""
    record = path / RECORD
    store = read_json(record).get("store") if record.is_file() else None
    return path / store if store else None
