"""Working on a finished run: the context its stages had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from pae_framework.runs.opened import OpenedRun

if TYPE_CHECKING:
    from pae_framework.stages.context import StageContext


def stage_context(opened: OpenedRun, stage: str, console: Console) -> StageContext:
    """The context of one stage of a run that exists, for reading what the run made.

    Raises:
        UsageError: the stage, or one it reads, is not there or not done.
    """
    from pae_framework.stages.context import StageContext

    planned = opened.plan[stage] if stage == "report" else opened.finished(stage)
    for name in planned.inputs:
        opened.finished(name)
    recipe, registry = opened.loaded.recipe, opened.loaded.registry
    return StageContext(
        recipe, registry, opened.directory, planned, opened.plan, console, _no_record
    )


def _no_record(**values: Any) -> None:
    """A finished run's records stay as they are."""
