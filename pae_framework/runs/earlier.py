"""Stages of a store that an earlier recipe or version began. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pae_framework.data.contents import Contents
from pae_framework.errors import PaeError, RunError
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry
from pae_framework.runs.directory import RECORD, RESOLVED, RunDirectory
from pae_framework.runs.plan import PlannedStage, Split
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord

Hashed = Mapping[str, Any]
"""What a fingerprint is the hash of, see :attr:`PlannedStage.hashed`."""


def earlier_stages(planned: PlannedStage, store: Path) -> Iterator[StageRecord]:
    """Records of the other folders of a stage in a store, in which it was begun."""
    for file in sorted(store.glob(f"{planned.name}-*/stage.json")):
        folder = file.parent
        if folder.name.rpartition("-")[0] != planned.name or folder.name == planned.folder:
            continue
        record = StageRecord(folder)
        try:
            begun = record.info.get("state", "pending") != "pending"
        except RunError:  # damaged, and of another recipe
            continue
        if begun:
            yield record


def described_stages(
    directory: RunDirectory, registry: Registry, found: Mapping[Split, Contents]
) -> dict[str, Hashed]:
    """What the fingerprints of a run's stages are hashes of, by folder.

    Of the recipe that the run was last started with. Stages that are identified otherwise today,
    because code or images have changed, are left out.

    Args:
        directory: of the run.
        registry: the installed plugins.
        found: contents of the images on this machine.
    """
    try:
        directory.text(RESOLVED)
        loaded = load_recipe(directory.path / RESOLVED, (), registry)
        stages = planned_stages(loaded, directory.store, found)
    except PaeError:  # it is damaged, or no longer loads
        return {}
    return {stage.folder: stage.hashed for stage in stages.values()}


def adopt_hashed(
    directory: RunDirectory, registry: Registry, found: Mapping[Split, Contents]
) -> None:
    """Record what the fingerprints are hashes of in stages that an earlier version finished.

    To be called before another recipe is described in the run. Arguments as in
    :func:`described_stages`.
    """
    if not (directory.path / RECORD).is_file():
        return
    records = {stage.folder: directory.stage(stage) for stage in directory.plan.values()}
    lacking = {name: x for name, x in records.items() if x.done and not x.info.get("hashed")}
    if not lacking:
        return
    for folder, hashed in described_stages(directory, registry, found).items():
        if folder in lacking:
            lacking[folder].adopt_hashed(hashed)
