"""State and progress of a run, and what its recipe would run anew. No torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pae_framework.data.contents import Contents
from pae_framework.errors import PaeError, RunError, UsageError
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.sweep import expand
from pae_framework.registry import Registry
from pae_framework.runs.changes import Change, Difference, difference
from pae_framework.runs.continuation import Origin, Refusal, find_origin
from pae_framework.runs.data_record import SPLITS, quickly_found_contents, remembered
from pae_framework.runs.directory import RESOLVED, RunDirectory
from pae_framework.runs.earlier import Hashed, described_stages, earlier_stages
from pae_framework.runs.plan import PlannedStage, Split
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord

logger = logging.getLogger(__name__)

STALE = "stale"
"""State of a stage that ran, but not with the present recipe, code and images."""


@dataclass(frozen=True)
class StageStatus:
    """State and progress of one stage."""

    stage: str
    state: str
    """As in its record; ``stale``; ``damaged`` if the record cannot be read."""
    progress: str
    """``300/900``, or the file its weights were loaded from."""
    time: str
    """Working time."""
    folder: str
    error: str
    """The reason, if the stage failed or its record is damaged."""
    process: str = ""
    """The process that works on it, and since when."""
    changes: tuple[str, ...] = ()
    """What makes it stale: key paths with the old and the new value, or other facts."""
    stale_inputs: tuple[str, ...] = ()
    """Stages that it reads of which it read other results."""
    outlook: str = ""
    """Whether a training that is stale goes on or starts anew, and why."""


@dataclass(frozen=True)
class Comparison:
    """The recipe that a run is compared with.

    Args:
        registry: the installed plugins.
        recipe: path or name of a recipe; None: the file that the run was started with if it still
            loads, else the recipe as it was run.
        overrides: ``key.path=value``, applied to it.
    """

    registry: Registry
    recipe: str | None = None
    overrides: tuple[str, ...] = ()


def run_status(path: Path, compared: Comparison | None = None) -> dict[str, list[StageStatus]]:
    """Stages by run; for a sweep, by every member that was started.

    Args:
        path: directory of a run or a sweep.
        compared: the recipe whose plan shows which stages are stale; None: none is.

    Raises:
        UsageError: ``path`` is not a run directory, or the recipe is that of another run.
        RunError: its ``run.json`` is damaged.
        RecipeError: the recipe that was asked for is invalid.
    """
    info = RunDirectory.at(path).info
    loaded = None if compared is None else _recipe(path, info, compared)
    if "members" not in info:
        return {info["name"]: _stages(path, loaded)}
    recipes = {member.name: member.loaded for member in expand(loaded)} if loaded else {}
    started = [name for name in info["members"] if (path / "members" / name / "run.json").is_file()]
    return {name: _stages(path / "members" / name, recipes.get(name)) for name in started}


# --- the recipe to compare with -------------------------------------------------------------------


def _recipe(path: Path, info: Mapping[str, Any], compared: Comparison) -> LoadedRecipe | None:
    """The recipe of a run or a sweep; None if nothing was asked for and none loads."""
    if compared.recipe is not None:
        loaded = load_recipe(compared.recipe, compared.overrides, compared.registry)
        if (found := _of_this_run(loaded, path, info)) is None:
            kind = "sweep" if "members" in info else "run"
            raise UsageError(
                f"{path} is a {kind} of the recipe {info['name']!r}; {compared.recipe} is another"
            )
        return found
    try:
        return _started_with(path, info, compared) or _as_it_was_run(path, info, compared)
    except PaeError:
        if compared.overrides:
            raise
        return None


def _started_with(path: Path, info: Mapping[str, Any], compared: Comparison) -> LoadedRecipe | None:
    """The present file that the run was started with; None if it is gone or another recipe."""
    file = Path(info.get("recipe") or path / RESOLVED)
    if not file.is_file():
        return None
    overrides = RunDirectory.at(path).text("overrides.txt").splitlines()
    try:
        loaded = load_recipe(file, (*overrides, *compared.overrides), compared.registry)
    except PaeError:
        logger.warning(
            "%s no longer loads (`pae check %s`); compared with %s", file, file, path / RESOLVED
        )
        return None
    return _of_this_run(loaded, path, info)


def _as_it_was_run(
    path: Path, info: Mapping[str, Any], compared: Comparison
) -> LoadedRecipe | None:
    loaded = load_recipe(path / RESOLVED, compared.overrides, compared.registry)
    return _of_this_run(loaded, path, info)


def _of_this_run(loaded: LoadedRecipe, path: Path, info: Mapping[str, Any]) -> LoadedRecipe | None:
    """The recipe, or the member of its sweep that the run is; None if it is another recipe."""
    if loaded.recipe.name != info["name"]:
        return None
    if (loaded.recipe.sweep is not None) == ("members" in info):
        return loaded
    members = {member.name: member.loaded for member in expand(loaded)}
    return members.get(path.resolve().name)


# --- stages ---------------------------------------------------------------------------------------


def _stages(path: Path, loaded: LoadedRecipe | None) -> list[StageStatus]:
    """The stages of a run; those of the recipe's plan, if there is a recipe to compare with."""
    info = RunDirectory.at(path).info
    directory = RunDirectory.at(path, path / info["store"])
    recorded = directory.plan
    if loaded is None:
        return [_status(name, directory.stage(stage)) for name, stage in recorded.items()]
    try:
        found = quickly_found_contents(loaded.recipe)
        planned = planned_stages(loaded, directory.store, found)
    except PaeError as error:
        logger.warning("which stages are stale is unknown: %s", error)
        return _stages(path, None)
    look = _Look(directory, loaded, recorded, found)
    return [look.status(stage) for stage in planned.values()]


@dataclass(frozen=True)
class _Look:
    """What the status of a run is found from."""

    directory: RunDirectory
    loaded: LoadedRecipe
    recorded: Mapping[str, PlannedStage]
    found: Mapping[Split, Contents]

    def status(self, planned: PlannedStage) -> StageStatus:
        """The state of a stage in the plan of the recipe."""
        record, last = self.directory.stage(planned), self._last(planned)
        own = _status(planned.name, record)
        if last is not None and (theirs := _status(planned.name, last)).state == "running":
            return theirs
        if record.file.exists() or last is None:
            return own
        return self._stale(planned, last)

    def _last(self, planned: PlannedStage) -> StageRecord | None:
        """The stage as this run had it last, in another folder; None if it had none."""
        recorded = self.recorded.get(planned.name)
        if recorded is not None and recorded.folder != planned.folder:
            record = self.directory.stage(recorded)
            if _status(planned.name, record).state not in ("pending", "damaged"):
                return record
        if self.directory.store.resolve() != (self.directory.path / "stages").resolve():
            return None  # the other folders may be those of other runs
        earlier = list(earlier_stages(planned, self.directory.store))
        return min(earlier, key=lambda x: self._distance(planned, x), default=None)

    def _distance(self, planned: PlannedStage, record: StageRecord) -> tuple[bool, int]:
        found = self._difference(planned, record)
        return (True, 0) if found is None else (False, len(found.changes) + len(found.inputs))

    def _difference(self, planned: PlannedStage, record: StageRecord) -> Difference | None:
        """How an earlier stage differs; None if it is unknown."""
        hashed = record.info.get("hashed") or self._described.get(record.path.name)
        if not hashed:
            return None
        return difference(planned.name, hashed, planned.hashed, self.loaded.recipe)

    @cached_property
    def _described(self) -> Mapping[str, Hashed]:
        return described_stages(self.directory, self.loaded.registry, self.found)

    def _stale(self, planned: PlannedStage, last: StageRecord) -> StageStatus:
        found = self._difference(planned, last)
        if found is None:
            unknown = "an earlier version ran it, which did not record its settings"
            return replace(_status(planned.name, last), state=STALE, changes=(unknown,))
        return replace(
            _status(planned.name, last),
            state=STALE,
            changes=tuple(self._text(change) for change in found.changes),
            stale_inputs=found.inputs,
            outlook=self._outlook(planned),
        )

    def _text(self, change: Change) -> str:
        """The change; with the names of the files, if images have changed."""
        for split in SPLITS:
            if change.key == ("data", split) and isinstance(change.old, str):
                before = remembered(self.directory.store, change.old)
                if before is not None and split in self.found:
                    return f"{dotted(change.key)} ({self.found[split].changes_since(before)})"
        return str(change)

    def _outlook(self, planned: PlannedStage) -> str:
        try:
            origin = find_origin(planned, self.loaded.recipe, self.directory.store)
        except RunError as error:
            return f"cannot run: {error}"
        if isinstance(origin, Origin):
            return f"goes on from {origin}"
        return f"starts anew: {origin}" if isinstance(origin, Refusal) else ""


def _status(name: str, record: StageRecord) -> StageStatus:
    try:
        info, state = record.info, record.state
    except RunError as error:
        info, state = {"error": str(error)}, "damaged"
    return StageStatus(
        stage=name,
        state=state,
        progress=_progress(info),
        time=f"{info['seconds']:.0f} s" if "seconds" in info else "",
        folder=str(record.path.resolve()),
        error=str(info.get("error") or "") if state in ("failed", "damaged") else "",
        process=_process(info) if state == "running" else "",
    )


def _progress(info: Mapping[str, Any]) -> str:
    if progress := info.get("progress"):
        return f"{progress['done']}/{progress['total']}"
    return f"from {info['weights']}" if "weights" in info else ""


def _process(info: Mapping[str, Any]) -> str:
    if (process := info.get("process")) is None:
        return ""
    return f"process {process['id']} on {process['host']} since {process['since']}"
