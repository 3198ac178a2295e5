"""Working on a finished run: the context its stages had."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pae_framework.recipe.models import Recipe
from pae_framework.runs.opened import OpenedRun
from pae_framework.runs.plan import upstream_stages

if TYPE_CHECKING:
    from pae_framework.execution.context import StageContext


def stage_context(opened: OpenedRun, stage: str, console: Console) -> StageContext:
    """A context that reads what a run made, up to one of its stages (the report's: all before it).

    It works on a GPU or, where there is none, on the CPU, even where the run asked for a GPU.

    Raises:
        UsageError: the stage, or one it reads, is not there or not done.
    """
    from pae_framework.execution.context import StageContext

    reads = _reads(opened, stage)
    for name in reads:
        opened.finished(name)
    planned = replace(opened.plan[stage], inputs=tuple(reads))
    recipe, registry = _for_any_machine(opened.loaded.recipe), opened.loaded.registry
    return StageContext(
        recipe, registry, opened.directory, planned, opened.plan, console, _no_record
    )


def _reads(opened: OpenedRun, stage: str) -> list[str]:
    """The stage and all that it stands on, in the order they ran."""
    if stage not in opened.plan:
        opened.finished(stage)  # says so
    return [name for name in upstream_stages(opened.plan, stage) if name != "report"]


def _for_any_machine(recipe: Recipe) -> Recipe:
    """The recipe, of which a GPU is used where there is one."""
    if recipe.runtime.device != "cuda":
        return recipe
    runtime = recipe.runtime.model_copy(update={"device": "auto"})
    return recipe.model_copy(update={"runtime": runtime})


def _no_record(**values: Any) -> None:
    """A finished run's records stay as they are."""
