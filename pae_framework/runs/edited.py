"""Plugins that were edited or upgraded after a stage ran. No torch.

Versions of components are part of fingerprints; their code and the version of their distribution
are not: editing a comment must not outdate results. So such a change is only reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pae_framework.recipe.components import active_components
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.registry import ComponentSpec, Plugin
from pae_framework.runs.looking import once
from pae_framework.runs.record import StageRecord
from pae_framework.runs.sources import source_hashes


@dataclass(frozen=True)
class PluginChanges:
    """In what the installed plugins of a stage differ from those that it ran with."""

    edited: tuple[str, ...] = ()
    """Packages whose code differs."""
    upgraded: tuple[str, ...] = ()
    """Distributions in another version, such as ``acme-terms 1.0 -> 1.1``."""

    def note(self, stage: str) -> str:
        """What to tell of the changes, and the remedy; empty if there are none."""
        versions = ", ".join(self.upgraded)
        if self.edited:
            found = f" ({versions})" if versions else ""
            code = ", ".join(self.edited)
            return f"the code of {code} changed since{found}; `--again {stage}` runs it anew"
        return f"{versions} since, with the same code" if versions else ""


def plugin_changes(stage: str, record: StageRecord, loaded: LoadedRecipe) -> PluginChanges:
    """What changed of the plugins whose components a stage depends on.

    Plugin files are part of its fingerprint. Nothing is known if it recorded no hashes of code.

    Raises:
        RunError: the record is damaged.
    """
    specs = list(_of_others(stage, loaded))
    packages = {package for spec in specs for package in _packages(spec)}
    ran_with = (record.info.get("ran_with") or [{}])[-1]
    before: Mapping[str, str] = ran_with.get("sources", {})
    if not packages & before.keys():
        return PluginChanges()
    registry = loaded.registry
    now = once(("sources", id(registry)), lambda: source_hashes(registry))
    edited = sorted(x for x in packages & before.keys() if before[x] != now.get(x))
    sources: Mapping[str, str] = ran_with.get("plugins", {})
    upgrades = {_upgrade(sources.get(spec.plugin.name), spec.plugin) for spec in specs}
    return PluginChanges(tuple(edited), tuple(sorted(filter(None, upgrades))))


def _upgrade(before: str | None, plugin: Plugin) -> str:
    """The version of a plugin before and now; empty if they are the same, or it is not recorded."""
    if before is None or before == plugin.source:
        return ""
    same_name = before.rpartition(" ")[0] == plugin.distribution
    return f"{before} -> {plugin.version if same_name else plugin.source}"


def _of_others(stage: str, loaded: LoadedRecipe) -> Iterator[ComponentSpec]:
    """The components of installed plugins that a stage depends on."""
    row, registry = STAGES[stage], loaded.registry
    for key in row.hashed_values(loaded.recipe):
        section: Any = loaded.recipe
        for part in row.written_at(key, loaded.recipe):
            section = getattr(section, str(part), None)
        for component in active_components({"": section}):
            spec = registry.find(component.kind, component.use)
            if not spec.built_in and not spec.plugin.file:
                yield spec


def _packages(spec: ComponentSpec) -> Iterator[str]:
    for reference in (spec.target, spec.config):
        yield reference.partition(":")[0].partition(".")[0]
