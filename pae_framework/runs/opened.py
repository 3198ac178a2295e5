"""A run that exists, opened again from its directory alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import UsageError
from pae_framework.plugins import Registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage


@dataclass(frozen=True)
class OpenedRun:
    """A run with its recipe and plan."""

    loaded: LoadedRecipe
    directory: RunDirectory
    plan: dict[str, PlannedStage]

    def finished(self, stage: str) -> PlannedStage:
        """A stage that must be there and done.

        Raises:
            UsageError: the recipe has no such stage, or it is not done; says how to finish it.
        """
        planned = self.plan.get(stage)
        if planned is None:
            raise UsageError(f"the recipe of {self.directory.path} has no stage {stage!r}")
        record = self.directory.stage(planned)
        if not record.done:
            path = self.directory.path
            raise UsageError(
                f"stage {stage!r} of {path} is {record.state}; finish it with "
                f"`pae run {path / 'resolved.yaml'} --run-dir {path}`"
            )
        return planned


def open_run(path: Path, registry: Registry) -> OpenedRun:
    """Open the run in ``path`` (of a sweep: one of its members).

    Raises:
        UsageError: there is no run, or a sweep where one run is asked for.
        RecipeError: its recipe no longer loads (a plugin is gone, say).
    """
    directory = RunDirectory.at(path)
    info = directory.info
    if members := info.get("members"):
        raise UsageError(
            f"{path} is a sweep; give one of its runs, such as {path / 'members' / members[0]}"
        )
    directory = RunDirectory.at(path, path / info["store"])
    loaded = load_recipe(path / "resolved.yaml", (), registry)
    # As planned when it ran: a later release may plan otherwise, and its stages are there.
    stages = [
        PlannedStage(entry["stage"], entry["fingerprint"], tuple(entry["inputs"]))
        for entry in info["plan"]
    ]
    return OpenedRun(loaded, directory, {stage.name: stage for stage in stages})
