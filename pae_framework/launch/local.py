"""Carry out a plan here: one stage after the other, finished ones skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console

from pae_framework.errors import PaeError, RunError
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage, plan, upstream_stages


@dataclass(frozen=True)
class LocalLauncher:
    """Runs stages in this process and tells a console about them."""

    console: Console

    def run(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        command: str,
        until: str | None = None,
    ) -> None:
        """Run every stage of a recipe that is not done.

        Args:
            loaded: the recipe.
            directory: where its run is.
            command: what was typed, for the record.
            until: only this stage and those it stands on; the rest of the plan stays pending.

        Raises:
            RunError: a stage failed; its record says why, and the same command goes on from there.
        """
        stages = {stage.name: stage for stage in plan(loaded.recipe, loaded.registry)}
        chosen = list(stages) if until is None else upstream_stages(stages, until)
        with directory.lock():
            directory.write(loaded, list(stages.values()), command)
            for name in chosen:
                self._stage(loaded, directory, stages[name], stages)
            if until is None:
                directory.link_report()

    def _stage(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        planned: PlannedStage,
        stages: Mapping[str, PlannedStage],
    ) -> None:
        record = directory.stage(planned)
        with record.lock(
            waiting=lambda: self._say(planned, "another process works on it; waiting")
        ):
            directory.link(planned)
            if record.done:
                self._say(planned, "done before")
                return
            self._say(planned, "goes on" if record.info else "starts")
            inputs = {name: stages[name].fingerprint for name in planned.inputs}
            with record.working(inputs) as update_record:
                self._carry_out(loaded, directory, planned, stages, update_record)
            self._say(planned, f"done in {record.info['seconds']:.1f} s")

    def _carry_out(self, loaded, directory, planned, stages, update_record) -> None:  # type: ignore[no-untyped-def]
        from pae_framework.execution.context import StageContext, configure_torch

        context = StageContext(
            loaded.recipe, loaded.registry, directory, planned, stages, self.console, update_record
        )
        configure_torch(loaded.recipe.runtime)
        update_record(machine=context.machine)
        try:
            STAGES[planned.name].function()(context)
        except PaeError:
            raise
        except Exception as error:
            raise RunError(
                f"stage {planned.name} failed: {type(error).__name__}: {error} "
                f"(folder {directory.stage(planned).path}; `--debug` shows the traceback)"
            ) from error

    def _say(self, planned: PlannedStage, text: str) -> None:
        self.console.print(f"[bold]{planned.name:<10}[/bold] {text}", highlight=False)
