"""Run the unfinished stages of a recipe on this machine, one after the other."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from pae_framework.launch.description import describe_run, is_first_visit
from pae_framework.launch.ranks import Ranks
from pae_framework.launch.run_hooks import RunHooks, hooks_of_run, is_complete
from pae_framework.launch.stage import run_stage
from pae_framework.preflight.requirements import kernels_of
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.continuation import CONTINUED
from pae_framework.runs.data_record import record_known_images
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.edited import plugin_changes
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.looking import looking_once
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.planned import IDENTIFIED
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import ADOPTED
from pae_framework.runs.sources import source_hashes
from pae_framework.system.console import PlainConsole

REPORT_STAGE = "report"
LOGS = "logs"
"""Folder of the run with one log per process, if there are several."""


@dataclass(frozen=True)
class LocalLauncher:
    """Runs stages in the processes of a run and shows their progress on a console.

    Args:
        console: of the main process.
        ranks: the processes; None: this one.
    """

    console: PlainConsole
    ranks: Ranks | None = None

    @looking_once()
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
            PluginError, UsageError: a component cannot be imported, or an attention kernel cannot
                be used; no stage was started.
        """
        with directory.lock():
            described = describe_run(loaded, directory, command, self.console, until)
            stages = described.stages
            if described.unfinished:
                self._try_components(loaded, described.unfinished)
            hooks = hooks_of_run(loaded, directory, command)
            with hooks.following(lambda: is_complete(directory, stages)):
                for name in described.chosen:
                    self._run_unfinished(loaded, directory, stages[name], stages, command, hooks)
                if until is None:
                    directory.link_report()

    @looking_once()
    def run_stages(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        stages: Mapping[str, PlannedStage],
        chosen: Sequence[str],
        command: str,
        before: Callable[[str], None] | None = None,
    ) -> None:
        """Run some stages of a run that is described already; others may run meanwhile.

        Args:
            loaded: the recipe, without a sweep.
            directory: the run's directory.
            stages: its plan.
            chosen: the stages to run, in this order; those that they read are done.
            command: what the user typed, for the record.
            before: called with the name of each stage before it.

        Raises:
            RunError: a stage failed. Its record has the reason; running again resumes it.
            PluginError, UsageError: a component cannot be imported, or an attention kernel cannot
                be used; no stage was started.
        """
        self._try_components(loaded, chosen)
        hooks = hooks_of_run(loaded, directory, command)
        with hooks.following(lambda: is_complete(directory, stages)):
            for name in chosen:
                if before is not None:
                    before(name)
                self._run_unfinished(loaded, directory, stages[name], stages, command, hooks)
            if REPORT_STAGE in chosen:
                directory.link_report()

    def _try_components(self, loaded: LoadedRecipe, stages: Collection[str]) -> None:
        if "torch" not in sys.modules:
            self.console.print("loading PyTorch ...")
        try_components(loaded, stages)

    def _run_unfinished(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        planned: PlannedStage,
        stages: Mapping[str, PlannedStage],
        command: str,
        hooks: RunHooks,
    ) -> None:
        record = directory.stage(planned)
        with record.lock(lambda holder: self._print(planned, f"waiting for {holder}")):
            directory.link(planned)
            if record.done:
                self._adopt(record, planned, loaded.recipe)
                self._use_finished(directory, planned, loaded)
                return
            may_go_on = not record.info or CONTINUED in record.info
            trains = STAGES[planned.name].train(loaded.recipe) is not None
            # Recorded with the state, so that a kill before the first checkpoint changes nothing.
            more = {CONTINUED: record.info.get(CONTINUED, {})} if may_go_on and trains else {}
            record.prepare()
            self._print(planned, "resumes" if record.info else "starts")
            more |= {"started": record.started}  # what the hooks are told, too
            inputs = {name: stages[name].fingerprint for name in planned.inputs}
            ran_with = _ran_with(loaded, command)
            with (
                hooks.stage(planned, record, more["started"]) as metrics_logged,
                record.working(inputs, ran_with, planned.hashed, more) as update_record,
            ):
                self._adopt(record, planned, loaded.recipe)
                from pae_framework.data.image_notes import NOTES
                from pae_framework.execution.context import StageContext  # loads torch
                from pae_framework.execution.going_on import go_on_from_earlier

                recipe, registry = loaded.recipe, loaded.registry
                context = StageContext(
                    *(recipe, registry, directory, planned, stages, self.console, update_record),
                    metrics_logged=metrics_logged,
                )
                go_on_from_earlier(context, may_go_on)
                try:
                    ranks = self.ranks or Ranks(1, self.console)
                    ranks.run(context, run_stage, directory.path / LOGS)
                finally:
                    NOTES.summarize()
            self._print(planned, f"done in {record.info['seconds']:.1f} s")

    def _adopt(self, record: StageRecord, planned: PlannedStage, recipe: Recipe) -> None:
        """Record the images of a stage that an earlier version identified by their path."""
        if not is_first_visit(record, planned):
            return
        record.update(**{IDENTIFIED: planned.identified})
        if record.done:
            record_known_images(record, planned, recipe)
        self._print(planned, "of an earlier version: identified by its images from now on")

    def _use_finished(
        self, directory: RunDirectory, planned: PlannedStage, loaded: LoadedRecipe
    ) -> None:
        record = directory.stage(planned)
        if directory.adopt_results(planned, loaded.recipe):
            self._print(planned, ADOPTED)
        record.keep_times(directory.results(planned).require_complete())
        self._print(planned, "cached")
        if note := plugin_changes(planned.name, record, loaded).note(planned.name):
            self._print(planned, note)

    def _print(self, planned: PlannedStage, text: str) -> None:
        self.console.print(Text.assemble((f"{planned.name:<10}", "bold"), f" {text}"))


def try_components(loaded: LoadedRecipe, stages: Collection[str]) -> None:
    """Import the components of a recipe, and try the attention kernels that some stages use.

    Raises:
        PluginError: a component cannot be imported.
        UsageError: a kernel cannot be used here.
    """
    from pae_framework.build import import_components  # loads torch
    from pae_framework.execution.context import pick_device
    from pae_framework.layers import require_kernel

    import_components(loaded.recipe, loaded.registry)
    for kernel in {kernel for _, kernel in kernels_of(loaded.recipe, stages)} - {"sdpa"}:
        require_kernel(kernel, pick_device(loaded.recipe.runtime))


def _ran_with(loaded: LoadedRecipe, command: str) -> dict[str, Any]:
    """What a stage runs with, for its record."""
    return {
        "command": command,
        "overrides": list(loaded.overrides),
        "host": platform.node(),
        **describe_environment(loaded.registry),
        "sources": source_hashes(loaded.registry),
    }
