"""The stages of a recipe in a store: planned by the contents of the images, found where they are.

Earlier versions identified images by their path. A stage that such a version has begun is found
under its former fingerprint. It belongs to the contents that are found at the first visit, which
are recorded in it; it is never used for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pae_framework.data.contents import Contents
from pae_framework.errors import PaeError
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.data_record import found_contents, identities, source_of
from pae_framework.runs.looking import once
from pae_framework.runs.plan import PlannedStage, Split, plan
from pae_framework.runs.record import StageRecord

IDENTIFIED = "identified"
"""Key of ``stage.json``: the fingerprint of a stage whose folder has a former one."""


def planned_stages(
    loaded: LoadedRecipe, store: Path, found: Mapping[Split, Contents] | None = None
) -> dict[str, PlannedStage]:
    """The stages of a recipe by name, in the order they run.

    Args:
        loaded: the recipe.
        store: folder of the stages; it need not exist.
        found: contents of the images on this machine; None: read them.

    Raises:
        DataError: a file of the images cannot be read.
    """
    recipe, registry = loaded.recipe, loaded.registry
    found = found_contents(recipe) if found is None else found
    data = identities(recipe, store, found)
    former = plan(recipe, registry)
    if not data:
        return {stage.name: stage for stage in former}
    contents = [(source_of(recipe, split).config, identity) for split, identity in data.items()]
    stages = plan(recipe, registry, contents)
    return {
        new.name: replace(_located(new, old, store), data=data)
        for new, old in zip(stages, former, strict=True)
    }


def _located(new: PlannedStage, old: PlannedStage, store: Path) -> PlannedStage:
    """The stage with the fingerprint of its folder."""
    if new.fingerprint == old.fingerprint or StageRecord(store / new.folder).info:
        return new
    info = known_info(store / old.folder)
    if info and info.get(IDENTIFIED, new.fingerprint) == new.fingerprint:
        return replace(new, fingerprint=old.fingerprint, identified=new.fingerprint)
    if (folder := _identified_folders(store).get(new.folder)) is not None:
        fingerprint = folder.removeprefix(f"{new.name}-")
        return replace(new, fingerprint=fingerprint, identified=new.fingerprint)
    return new


def _identified_folders(store: Path) -> Mapping[str, str]:
    """Folders with a former fingerprint, by the name that they would have by their images."""

    def look() -> dict[str, str]:
        found = {}
        for file in sorted(store.glob("*/stage.json"), reverse=True):  # the first one counts
            folder = file.parent
            if identified := known_info(folder).get(IDENTIFIED):
                found[f"{folder.name.rpartition('-')[0]}-{identified}"] = folder.name
        return found

    return once(("identified", store.absolute()), look)


def known_info(folder: Path) -> dict[str, Any]:
    """The record of a stage in a folder that may be another recipe's; empty if it is damaged."""
    try:
        return StageRecord(folder).info
    except (PaeError, OSError, ValueError, TypeError):
        return {}
