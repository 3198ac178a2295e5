"""The directory of a run, readable with ordinary tools.

::

    RUN/
      run.json            name, plan (stage -> fingerprint), command, path of the recipe
      recipe.yaml         the recipe file as given;  overrides.txt  overrides of the command line
      resolved.yaml       the recipe with all values; `pae run RUN/resolved.yaml` repeats the run
      environment.json    machine, packages, plugins of the stage that started last
      stages/             one folder per stage and fingerprint; an edit overwrites nothing
      encoder -> stages/encoder-1f2e3d4c5b6a   the stage that this recipe uses; one link per stage
      report.html         -> report/report.html

A sweep also has ``members/<variant>-seed<k>/``. Each is a run whose links lead into the sweep's own
``stages/``, so members share the stages they have in common.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints, model_validator

from pae_framework.errors import PaeError, RunError, UsageError
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.adoption import describe_fault
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.locks import holding
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.reading import read_record, read_text
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import StageResults
from pae_framework.runs.store_users import note_user
from pae_framework.system.file_errors import folder_problem
from pae_framework.system.files import digest_of_text, point, write_json, write_text

RECORD = "run.json"
REPORT = "report.html"
ENVIRONMENT = "environment.json"
RESOLVED = "resolved.yaml"
_DESCRIPTION = (RECORD, "recipe.yaml", "overrides.txt", RESOLVED)
_REMEDY = (
    "repeat, without this file, the `pae run` command of the run (of the sweep, for a member); "
    "finished stages are kept"
)


_Name = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$")]
"""A name or path of a file or folder."""


class _Entry(BaseModel):
    stage: _Name
    fingerprint: _Name
    folder: _Name
    inputs: list[str]


class _Claim(BaseModel):
    """What tells a directory's run or sweep from others."""

    name: str
    members: list[_Name] = []
    store: _Name | None = None


class _Run(BaseModel):
    """The shape of ``run.json`` of a single run."""

    name: str
    command: str
    recipe: str = ""
    resolved: str = ""
    plan: list[_Entry]
    store: _Name

    @model_validator(mode="after")
    def _reads_planned_stages(self) -> _Run:
        names = {entry.stage for entry in self.plan}
        for entry in self.plan:
            if unknown := set(entry.inputs) - names:
                raise ValueError(f"{entry.stage} reads {sorted(unknown)}, which the plan lacks")
        return self


class _Sweep(BaseModel):
    """The shape of ``run.json`` of a sweep."""

    name: str
    command: str
    recipe: str = ""
    resolved: str = ""
    members: list[_Name]


class _Environment(BaseModel):
    """The shape of ``environment.json``, as far as it is read."""

    packages: dict[str, str] = {}
    plugins: dict[str, str] = {}


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory; ``store`` holds the folders of its stages."""

    path: Path
    store: Path

    @classmethod
    def at(cls, path: Path, store: Path | None = None) -> RunDirectory:
        """A run at ``path``; its store is ``path / "stages"`` unless a sweep shares one."""
        return cls(path, store or path / "stages")

    def absolute(self) -> RunDirectory:
        """The same directory, for a process in another folder."""
        return RunDirectory(self.path.absolute(), self.store.absolute())

    def claim(self, name: str, sweep: bool = False) -> None:
        """Check that the directory is empty, or holds a run or sweep of this name.

        Raises:
            UsageError: it holds a run of another recipe, or other files, cannot be written, or
                is not UTF-8.
        """
        require_folder(self.path, "--run-dir")
        problem = None
        if str(self.path).encode(errors="ignore").decode() != str(self.path):
            problem = "is not a path in UTF-8, which files of weights need"
        elif (self.path / RECORD).exists():
            info = _read(self.path, _Claim)
            if info.get("name") != name or ("members" in info) != sweep:
                found, wanted = ("sweep" if s else "run" for s in ("members" in info, sweep))
                problem = (
                    f"holds a {found} of the recipe {info.get('name')!r}, not a {wanted} of "
                    f"{name!r}"
                )
        elif not _lost_its_record(self.path) and _has_visible_files(self.path):
            problem = "is not empty and not a run directory"
        if problem is not None:
            raise UsageError(f"{self.path} {problem}; choose another --run-dir")

    def write(
        self, loaded: LoadedRecipe, stages: list[PlannedStage], command: str, starts: bool
    ) -> None:
        """Describe the run, and remove links to stages of an earlier plan.

        Args:
            loaded: the recipe.
            stages: its plan.
            command: what the user typed.
            starts: whether a stage is about to start; see :func:`write_description`.
        """
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
        note_user(self.store, self.path)  # first: the stages are in use once they are planned
        write_description(self.path, info, loaded, starts)
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
            RunError: the file is damaged.
        """
        if not os.path.lexists(self.path / RECORD):
            raise UsageError(f"{self.path} holds no run: it has no {RECORD}")
        return _read_whole(self.path)

    @property
    def plan(self) -> dict[str, PlannedStage]:
        """The recorded plan of a single run, by stage: a later release may plan differently.

        Raises:
            UsageError: the directory holds no run.
            RunError: its ``run.json`` is damaged.
        """
        return {
            entry["stage"]: PlannedStage(
                entry["stage"], entry["fingerprint"], tuple(entry["inputs"])
            )
            for entry in self.info["plan"]
        }

    @property
    def environment(self) -> dict[str, Any]:
        """Software and machine of the stage that started last.

        Raises:
            RunError: the file is missing or damaged.
        """
        return dict(read_record(self.path / ENVIRONMENT, _Environment, _REMEDY))

    def text(self, name: str) -> str:
        """A text file of the run's description.

        Raises:
            RunError: the file is missing or damaged, or is not the recipe that was run.
        """
        text = read_text(self.path / name, _REMEDY)
        digest = digest_of_text(text)
        if name == RESOLVED and self.info.get("resolved", digest) != digest:
            raise RunError(
                f"{self.path / name} is not the recipe that was run; {_REMEDY}, or run the changed "
                f"recipe with `pae run`"
            )
        return text

    def stage(self, planned: PlannedStage) -> StageRecord:
        """The record of a stage in the store."""
        return StageRecord(self.store / planned.folder)

    def results(self, planned: PlannedStage) -> StageResults:
        """The files that a finished stage left, checked where they are read."""
        record, path = self.stage(planned), shlex.quote(str(self.path))
        command = f"pae run {path}/resolved.yaml --run-dir {path} --again {planned.name}"
        remedy = f"to run the stage again: `{command}`"
        return StageResults(record.path, record.info.get("results"), remedy)

    def adopt_results(self, planned: PlannedStage, recipe: Recipe) -> bool:
        """Record the results of a stage that an earlier version finished.

        Returns whether they were recorded now.

        Raises:
            RunError: the stage must have left a file that is missing or not whole.
        """
        record = self.stage(planned)
        if not record.lacks_results:
            return False
        stage = STAGES[planned.name]
        if (fault := describe_fault(record.path, stage, recipe, record.total)) is not None:
            raise self.results(planned).error(*fault)
        return record.adopt_results()

    def link(self, planned: PlannedStage) -> None:
        """Make ``RUN/<stage>`` a link to the stage's folder, unless the plan has another by now.

        A job that was submitted before the recipe was edited runs a stage of an earlier plan.

        Raises:
            RunError: ``run.json`` is damaged.
        """
        current = self.plan.get(planned.name)
        if current is not None and current.folder == planned.folder:
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


def write_description(path: Path, info: dict[str, Any], loaded: LoadedRecipe, starts: bool) -> None:
    """Describe a run or sweep in its directory; its record comes first and claims the directory.

    Nothing is written if no stage starts and the plan and the recipe are those described, so a
    finished run keeps the command and the software that it ran with.

    Args:
        path: the directory.
        info: content of ``run.json``.
        loaded: the recipe.
        starts: whether a stage is about to start.
    """
    resolved = loaded.resolved_yaml()
    info = {**info, "recipe": str(loaded.source.absolute()), "resolved": digest_of_text(resolved)}
    if starts or not _describes(path, info, loaded):
        write_json(path / RECORD, info)
        write_text(path / "recipe.yaml", loaded.text)
        write_text(path / "overrides.txt", "".join(f"{item}\n" for item in loaded.overrides))
        write_text(path / RESOLVED, resolved)
    if starts or not (path / ENVIRONMENT).is_file():
        write_json(path / ENVIRONMENT, describe_environment(loaded.registry))


def _describes(path: Path, info: dict[str, Any], loaded: LoadedRecipe) -> bool:
    """Whether the directory has all files of the description, with this plan and recipe.

    Settings that the recipe lacks, because they are new, have their defaults.
    """
    if not all((path / name).is_file() for name in _DESCRIPTION):
        return False
    try:
        known = _read_whole(path)
        described = load_recipe(path / RESOLVED, (), loaded.registry)
        same = described.resolved_yaml() == loaded.resolved_yaml()
    except PaeError:
        return False
    return same and all(known.get(key) == info.get(key) for key in ("plan", "members", "store"))


def _read(path: Path, shape: Any) -> dict[str, Any]:
    return dict(read_record(path / RECORD, shape, _REMEDY))


def _read_whole(path: Path) -> dict[str, Any]:
    return _read(path, _Sweep if "members" in _read(path, _Claim) else _Run)


def _lost_its_record(path: Path) -> bool:
    """Whether a run or sweep was described here, but its ``run.json`` is gone."""
    return (path / RESOLVED).is_file() and (path / "overrides.txt").is_file()


def _has_visible_files(path: Path) -> bool:
    return path.exists() and any(not entry.name.startswith(".") for entry in path.iterdir())


def stages_dir_of(path: Path) -> Path | None:
    """Folder of the stages of an existing run; None for a new run and for a sweep.

    Raises:
        RunError: its ``run.json`` is damaged.
    """
    store = _read(path, _Claim).get("store") if os.path.lexists(path / RECORD) else None
    return path / store if store else None
