"""Opens an existing run from its directory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import RunError, UsageError
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.registry import DISTRIBUTION, Registry, normalized
from pae_framework.runs.directory import RESOLVED, RunDirectory
from pae_framework.runs.plan import PlannedStage


@dataclass(frozen=True)
class OpenedRun:
    """A run with its recipe and plan."""

    loaded: LoadedRecipe
    directory: RunDirectory
    plan: dict[str, PlannedStage]

    def edited_plugins(self) -> list[str]:
        """Plugin files whose contents are not those that the run's last stage ran with."""
        files = [plugin for plugin in self.loaded.registry.plugins if plugin.file]
        recorded = self.directory.environment.get("plugins", {}) if files else {}
        return [
            plugin.file
            for plugin in files
            if str(recorded.get(plugin.name, plugin.version)).rpartition(" ")[2] != plugin.version
        ]

    def finished(self, stage: str) -> PlannedStage:
        """The plan of a stage that must be done.

        Raises:
            UsageError: the recipe has no such stage, or it is not done.
        """
        planned = self.plan.get(stage)
        if planned is None:
            raise UsageError(f"the recipe of {self.directory.path} has no stage {stage!r}")
        record, path = self.directory.stage(planned), self.directory.path
        if not record.done:
            found = record.state if record.info else f"pending ({record.file} does not exist)"
            advice = f"run `pae run {path / 'resolved.yaml'} --run-dir {path}`"
            if record.state == "running":
                advice = f"wait until it is (`pae status {path}`)"
            raise UsageError(f"stage {stage!r} of {path} is {found}, not done; {advice}")
        return planned


def open_directory(path: Path) -> RunDirectory:
    """The directory of the run, or of the member of a sweep, at ``path``.

    Raises:
        UsageError: ``path`` is not a run directory, or it is a whole sweep.
        RunError: its ``run.json`` is damaged.
    """
    info = RunDirectory.at(path).info
    if members := info.get("members"):
        member = path / "members" / members[0]
        raise UsageError(f"{path} is a sweep; choose one of its members, e.g. {member}")
    return RunDirectory.at(path, path / info["store"])


def open_run(path: Path, registry: Registry) -> OpenedRun:
    """Open the run, or the member of a sweep, in the directory ``path``.

    Raises:
        UsageError: ``path`` is not a run directory, or it is a whole sweep.
        RunError: its ``run.json`` is damaged.
        RecipeError: its recipe no longer loads, e.g. because a plugin was removed; names the
            distributions that are gone.
    """
    directory = open_directory(path)
    directory.text(RESOLVED)
    loaded = load_recipe(path / RESOLVED, (), knowing_gone_plugins(registry, path))
    return OpenedRun(loaded, directory, directory.plan)


def knowing_gone_plugins(registry: Registry, path: Path) -> Registry:
    """A copy of the registry whose errors about unknown components name plugins that are gone.

    Those are what the run at ``path`` used and is not installed, or in another version. Plugin
    files do not count: the recipe names them.
    """
    recorded: dict[str, str] = {}
    with suppress(RunError):  # not begun, or damaged
        recorded = RunDirectory.at(path).environment.get("plugins", {})
    gone = set(recorded.values()) - {plugin.source for plugin in registry.plugins}
    known = registry.copy()
    known.gone = tuple(sorted(source for source in gone if _is_of_others(source)))
    return known


def _is_of_others(source: str) -> bool:
    """Whether a plugin is from an installed distribution that is not the framework's."""
    distribution = source.partition(" ")[0]
    return not Path(source).is_absolute() and normalized(distribution) != DISTRIBUTION
