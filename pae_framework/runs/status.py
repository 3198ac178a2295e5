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
from pae_framework.runs.edited import plugin_changes
from pae_framework.runs.job_status import JobStatus, JobsView
from pae_framework.runs.looking import once
from pae_framework.runs.plan import PlannedStage, Split
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.runs.stage_status import StageStatus, stage_status

logger = logging.getLogger(__name__)

STALE = "stale"
"""State of a stage that ran, but not with the present recipe, code and images."""


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
    view = _jobs(path)
    if "members" not in info:
        return {info["name"]: _stages(path, loaded, view)}
    recipes = {member.name: member.loaded for member in expand(loaded)} if loaded else {}
    started = [name for name in info["members"] if (path / "members" / name / "run.json").is_file()]
    return {name: _stages(path / "members" / name, recipes.get(name), view) for name in started}


def comparison_job(path: Path) -> JobStatus | None:
    """The job that writes the results of a sweep; None if there is none."""
    view = _jobs(path)
    return None if view is None else view.comparison


def _jobs(path: Path) -> JobsView | None:
    """The jobs of a run; None if the file that lists them is damaged, which hides nothing else."""

    def look() -> JobsView | None:
        try:
            return JobsView(path)
        except RunError as error:
            logger.warning("the jobs of the run are unknown: %s", error)
            return None

    return once(("jobs", path.absolute()), look)


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


def _stages(path: Path, loaded: LoadedRecipe | None, view: JobsView | None) -> list[StageStatus]:
    """The stages of a run; those of the recipe's plan, if there is a recipe to compare with."""
    info = RunDirectory.at(path).info
    directory = RunDirectory.at(path, path / info["store"])
    recorded = directory.plan
    if loaded is None:
        stages = [(name, directory.stage(stage)) for name, stage in recorded.items()]
        return [stage_status(name, record, view) for name, record in stages]
    try:
        found = quickly_found_contents(loaded.recipe)
        planned = planned_stages(loaded, directory.store, found)
    except PaeError as error:
        logger.warning("which stages are stale is unknown: %s", error)
        return _stages(path, None, view)
    look = _Look(directory, loaded, recorded, found, view)
    return [look.status(stage) for stage in planned.values()]


@dataclass(frozen=True)
class _Look:
    """What the status of a run is found from."""

    directory: RunDirectory
    loaded: LoadedRecipe
    recorded: Mapping[str, PlannedStage]
    found: Mapping[Split, Contents]
    view: JobsView | None

    def status(self, planned: PlannedStage) -> StageStatus:
        """The state of a stage in the plan of the recipe."""
        record, last = self.directory.stage(planned), self._last(planned)
        own = self._status(planned, record)
        if last is not None and (theirs := self._status(planned, last)).state == "running":
            return theirs
        if own.state == "done":
            changes = plugin_changes(planned.name, record, self.loaded)
            return replace(own, edited=changes.edited, upgraded=changes.upgraded)
        if record.file.exists() or last is None:
            return own
        return self._stale(planned, last, own.job)

    def _status(self, planned: PlannedStage, record: StageRecord) -> StageStatus:
        return stage_status(planned.name, record, self.view)

    def _last(self, planned: PlannedStage) -> StageRecord | None:
        """The stage as this run had it last, in another folder; None if it had none."""
        recorded = self.recorded.get(planned.name)
        if recorded is not None and recorded.folder != planned.folder:
            record = self.directory.stage(recorded)
            if self._status(planned, record).state not in ("pending", "damaged"):
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

    def _stale(
        self, planned: PlannedStage, last: StageRecord, job: JobStatus | None
    ) -> StageStatus:
        """An earlier stage, beside the job of the present one."""
        status, found = self._status(planned, last), self._difference(planned, last)
        status = replace(status, state=STALE, job=job or status.job)
        if found is None:
            unknown = "an earlier version ran it, which did not record its settings"
            return replace(status, changes=(unknown,))
        return replace(
            status,
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
