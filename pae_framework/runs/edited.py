"""Plugin code that was edited after a stage ran. No torch.

Versions of components are part of fingerprints, their code is not: editing a comment must not
outdate results. So an edit without a new version is only reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pae_framework.recipe.components import active_components
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.looking import once
from pae_framework.runs.record import StageRecord
from pae_framework.runs.sources import source_hashes


def edited_code(stage: str, record: StageRecord, loaded: LoadedRecipe) -> tuple[str, ...]:
    """Packages of installed plugins whose code is not the one that a stage ran with.

    Only those whose components the stage depends on; plugin files are part of its fingerprint.

    Raises:
        RunError: the record is damaged.
    """
    packages = set(_packages(stage, loaded))
    ran_with = record.info.get("ran_with") or [{}]
    before: Mapping[str, str] = ran_with[-1].get("sources", {})
    if not packages & before.keys():
        return ()
    registry = loaded.registry
    now = once(("sources", id(registry)), lambda: source_hashes(registry))
    return tuple(sorted(x for x in packages & before.keys() if before[x] != now.get(x)))


def edit_note(stage: str, packages: tuple[str, ...]) -> str:
    """What to tell of edited code."""
    return f"the code of {', '.join(packages)} changed since; `--again {stage}` runs it anew"


def _packages(stage: str, loaded: LoadedRecipe) -> Iterator[str]:
    row, registry = STAGES[stage], loaded.registry
    for key in row.hashed_values(loaded.recipe):
        section: Any = loaded.recipe
        for part in row.written_at(key, loaded.recipe):
            section = getattr(section, str(part), None)
        for component in active_components({"": section}):
            spec = registry.find(component.kind, component.use)
            if not spec.built_in and not spec.plugin.file:
                yield spec.target.partition(".")[0].partition(":")[0]
                yield spec.config.partition(".")[0].partition(":")[0]
