"""What a job was submitted with: its recipe, and the code it was to run. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pae_framework.errors import RunError
from pae_framework.plugins import load_registry, with_files
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.registry import Registry
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.sources import changed_sources, source_hashes
from pae_framework.system.files import digest_of_text


@dataclass(frozen=True)
class Snapshot:
    """The recipe of a job, and what it was submitted with.

    Args:
        file: the recipe with all values, in the folder of jobs.
        digest: of its text.
        source: the user's recipe file.
        source_digest: of its text.
        versions: of packages and plugins.
        sources: hash of the code of each package.
        plugins: files of plugins.
    """

    file: Path
    digest: str
    source: Path
    source_digest: str
    versions: Mapping[str, str]
    sources: Mapping[str, str]
    plugins: tuple[Path, ...] = ()

    def registry(self) -> Registry:
        """The plugins that are installed now, and those of the recipe's files."""
        return with_files(load_registry(), self.plugins)

    def load(self, registry: Registry) -> LoadedRecipe:
        """The recipe as it was submitted.

        Raises:
            RunError: the file is missing or was changed.
            RecipeError: it is no longer valid, e.g. because a plugin was removed.
        """
        if _text(self.file) is None or digest_of_text(_text(self.file) or "") != self.digest:
            raise RunError(f"{self.file} is missing or was changed; submit the run again")
        return replace(load_recipe(self.file, (), registry), source=self.source)

    def changes(self, registry: Registry) -> list[str]:
        """What has changed since the submission, one line each."""
        present = versions(registry)
        changes = [
            f"{name}: {self.versions.get(name, 'not installed')} when it was submitted, "
            f"{present.get(name, 'not installed')} now"
            for name in sorted(self.versions.keys() | present.keys())
            if self.versions.get(name) != present.get(name)
        ]
        changes += [
            f"the code of {name} was edited"
            for name in changed_sources(self.sources, source_hashes(registry))
        ]
        text = _text(self.source)
        if text is not None and digest_of_text(text) != self.source_digest:
            changes.append(f"{self.source} was edited, which has no effect on this job")
        return changes


def versions(registry: Registry) -> dict[str, str]:
    """Version of each package and plugin."""
    described = describe_environment(registry)
    return {**described["packages"], **described["plugins"]}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
