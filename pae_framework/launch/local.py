"""Run the unfinished stages of a recipe in this process, one after the other."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pae_framework.errors import PaeError, RunError
from pae_framework.files import clear_unfinished
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.plan import PlannedStage, plan, upstream_stages
from pae_framework.runs.results import ADOPTED

if TYPE_CHECKING:
    from pae_framework.execution.context import StageContext


@dataclass(frozen=True)
class LocalLauncher:
    """Runs stages in this process and shows their progress on a console."""

    console: Console

    def run(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        command: str,
        until: str | None = None,
    ) -> None:
        """Run every unfinished stage of a recipe.

        Args:
            loaded: the recipe, without a sweep.
            directory: the run's directory.
            command: what the user typed, for the record.
            until: run only this stage and the stages it depends on; None: all.

        Raises:
            RunError: a stage failed. Its record has the reason; running again resumes it.
        """
        stages = {stage.name: stage for stage in plan(loaded.recipe, loaded.registry)}
        chosen = list(stages) if until is None else upstream_stages(stages, until)
        with directory.lock():
            clear_unfinished(directory.path, recursive=False)
            starts = not all(directory.stage(stages[name]).done for name in chosen)
            directory.write(loaded, list(stages.values()), command, starts)
            for name in chosen:
                self._run_unfinished(loaded, directory, stages[name], stages, command)
            if until is None:
                directory.link_report()

    def _run_unfinished(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        planned: PlannedStage,
        stages: Mapping[str, PlannedStage],
        command: str,
    ) -> None:
        record = directory.stage(planned)
        with record.lock(waiting=lambda: self._print(planned, "waiting for another process")):
            directory.link(planned)
            if record.done:
                self._use_finished(directory, planned)
                return
            record.prepare()
            self._print(planned, "resumes" if record.info else "starts")
            inputs = {name: stages[name].fingerprint for name in planned.inputs}
            ran_with = _ran_with(loaded, command)
            with record.working(inputs, ran_with) as update_record:
                from pae_framework.execution.context import StageContext  # loads torch

                recipe, registry = loaded.recipe, loaded.registry
                context = StageContext(
                    recipe, registry, directory, planned, stages, self.console, update_record
                )
                _run_stage(context)
            self._print(planned, f"done in {record.info['seconds']:.1f} s")

    def _use_finished(self, directory: RunDirectory, planned: PlannedStage) -> None:
        if directory.stage(planned).adopt_results():
            self._print(planned, ADOPTED)
        directory.results(planned).require_complete()
        self._print(planned, "cached")

    def _print(self, planned: PlannedStage, text: str) -> None:
        self.console.print(f"[bold]{planned.name:<10}[/bold] {text}", highlight=False)


def _ran_with(loaded: LoadedRecipe, command: str) -> dict[str, Any]:
    """What a stage runs with, for its record."""
    return {
        "command": command,
        "overrides": list(loaded.overrides),
        "host": platform.node(),
        **describe_environment(loaded.registry),
    }


def _run_stage(context: StageContext) -> None:
    from pae_framework.execution.context import configure_torch

    name = context.planned.name
    configure_torch(context.recipe.runtime)
    context.update_record(machine=context.machine)
    try:
        STAGES[name].function()(context)
    except PaeError:
        raise
    except Exception as error:
        raise RunError(
            f"stage {name} failed: {type(error).__name__}: {error} "
            f"(folder {context.directory}; `--debug` shows the traceback)"
        ) from error
