"""Run the unfinished stages of a recipe in this process, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from pae_framework.console import PlainConsole
from pae_framework.errors import PaeError, RunError
from pae_framework.file_errors import describe_system_error
from pae_framework.preflight.machine import memory_advice
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage, plan, upstream_stages

if TYPE_CHECKING:
    from pae_framework.execution.context import StageContext


@dataclass(frozen=True)
class LocalLauncher:
    """Runs stages in this process and shows their progress on a console."""

    console: PlainConsole

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
            PluginError: a component cannot be imported; no stage was started.
        """
        stages = {stage.name: stage for stage in plan(loaded.recipe, loaded.registry)}
        chosen = list(stages) if until is None else upstream_stages(stages, until)
        with directory.lock():
            directory.write(loaded, list(stages.values()), command)
            if any(not directory.stage(stages[name]).done for name in chosen):
                from pae_framework.build import import_components  # loads torch

                import_components(loaded.recipe, loaded.registry)
            for name in chosen:
                self._run_unfinished(loaded, directory, stages[name], stages)
            if until is None:
                directory.link_report()

    def _run_unfinished(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        planned: PlannedStage,
        stages: Mapping[str, PlannedStage],
    ) -> None:
        record = directory.stage(planned)
        with record.lock(waiting=lambda: self._print(planned, "waiting for another process")):
            directory.link(planned)
            if record.done:
                self._print(planned, "cached")
                return
            self._print(planned, "resumes" if record.info else "starts")
            inputs = {name: stages[name].fingerprint for name in planned.inputs}
            with record.working(inputs) as update_record:
                from pae_framework.execution.context import StageContext  # loads torch

                recipe, registry = loaded.recipe, loaded.registry
                context = StageContext(
                    recipe, registry, directory, planned, stages, self.console, update_record
                )
                _run_stage(context)
            self._print(planned, f"done in {record.info['seconds']:.1f} s")

    def _print(self, planned: PlannedStage, text: str) -> None:
        self.console.print(Text.assemble((f"{planned.name:<10}", "bold"), f" {text}"))


def _run_stage(context: StageContext) -> None:
    from pae_framework.data.image_notes import NOTES
    from pae_framework.execution.context import configure_torch

    name = context.planned.name
    configure_torch(context.recipe.runtime)
    context.update_record(machine=context.machine)
    try:
        STAGES[name].function()(context)
    except PaeError:
        raise
    except Exception as error:
        raise RunError(f"stage {name} failed: {_explanation(error, context)}") from error
    finally:
        NOTES.summarize()


def _explanation(error: Exception, context: StageContext) -> str:
    from pae_framework.data.read_ahead import worker_death

    if isinstance(error, OSError):
        return f"{describe_system_error(error)} (folder {context.directory})"
    if (death := worker_death(error)) is not None:
        name = context.planned.name
        settings = dotted(STAGES[name].train_path or (name,))
        advice = memory_advice(f"{settings}.workers or {settings}.batch_size")
        return f"{death}, {advice}, then run it again to resume"
    return (
        f"{type(error).__name__}: {error} "
        f"(folder {context.directory}; `--debug` shows the traceback)"
    )
