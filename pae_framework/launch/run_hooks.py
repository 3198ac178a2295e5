"""Tells plugins what a run does, through their life-cycle hooks. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from pae_framework.errors import PluginError, StoppedError
from pae_framework.launch.hook_calls import HookCalls
from pae_framework.lifecycle import (
    Artifact,
    LoggedMetrics,
    RunInfo,
    RunResult,
    StageFailure,
    StageInfo,
)
from pae_framework.plugin_code import guarded
from pae_framework.plugins import module_of
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.registry import Registry
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import StageRecord

STAGE_SECONDS = 10.0
"""How long a stage waits for hooks at its start and at its end."""
RUN_SECONDS = 60.0
"""How long a run that ends waits for hooks."""
STOP_SECONDS = 5.0
"""How long a stage or run that was interrupted waits for hooks."""

logger = logging.getLogger(__name__)

_Interruption = (StoppedError, KeyboardInterrupt)


class RunHooks:
    """The life-cycle hooks of a run, for the main process.

    Args:
        run: the run.
        followers: gives the hooks of each plugin that follows it, when the first stage starts.
    """

    def __init__(self, run: RunInfo, followers: Callable[[], list[HookCalls]]):
        self._run, self._followers = run, followers
        self._calls: list[HookCalls] = []
        self._has_started = False

    @contextmanager
    def following(self, complete: Callable[[], bool]) -> Iterator[None]:
        """Tell how the block ends, if a stage started in it.

        Args:
            complete: says whether all stages of the run are done.
        """
        result = RunResult("done", complete=False)
        try:
            yield
            result = RunResult("done", complete()) if self._has_started else result
        except BaseException as error:
            result = RunResult(_state(error), complete=False, error=_text(error))
            raise
        finally:
            if self._has_started:
                self._tell("pae_run_finished", result=result)
                seconds = STOP_SECONDS if result.state == "stopped" else RUN_SECONDS
                for calls in self._calls:
                    calls.end(seconds)

    @contextmanager
    def stage(
        self, planned: PlannedStage, record: StageRecord, started: str
    ) -> Iterator[Callable[[LoggedMetrics], None]]:
        """Tell of a stage, which runs in the block; yields what is to be told each line of its log.

        Args:
            planned: the stage.
            record: its record, which lists its results after the block.
            started: when the stage began, as in its record.
        """
        stage = StageInfo(planned.name, planned.fingerprint, record.path.absolute(), started)
        if not self._has_started:
            self._has_started = True
            self._calls = self._followers()
            self._tell("pae_run_started")
        for calls in self._calls:
            calls.start_stage()
        self._tell("pae_stage_started", stage=stage)
        self._wait(STAGE_SECONDS)
        try:
            yield partial(self._metrics_logged, stage)
        except BaseException as error:
            failure = StageFailure(_state(error), _text(error))
            self._tell("pae_stage_failed", stage=stage, failure=failure)
            self._wait(STOP_SECONDS if failure.state == "stopped" else STAGE_SECONDS)
            raise
        if any(calls.implements("pae_artifact_written") for calls in self._calls):
            for name, facts in record.info["results"].items():
                artifact = Artifact(name, stage.path / name, facts["size"])
                self._tell("pae_artifact_written", stage=stage, artifact=artifact)
        self._tell("pae_stage_finished", stage=stage)
        self._wait(STAGE_SECONDS)

    def _metrics_logged(self, stage: StageInfo, metrics: LoggedMetrics) -> None:
        self._tell("pae_metrics_logged", stage=stage, metrics=metrics)

    def _tell(self, hook: str, **arguments: Any) -> None:
        for calls in self._calls:
            calls.call(hook, {"run": self._run, **arguments})

    def _wait(self, seconds: float) -> None:
        for calls in self._calls:
            calls.wait(seconds)


def hooks_of_run(loaded: LoadedRecipe, directory: RunDirectory, command: str) -> RunHooks:
    """The life-cycle hooks of all installed plugins and of the recipe's plugin files."""
    path = directory.path.absolute()
    run = RunInfo(loaded.recipe.name, path, loaded.resolved(), command)
    return RunHooks(run, lambda: [*_plugins(loaded.registry), *_trackers(loaded)])


def is_complete(directory: RunDirectory, stages: Mapping[str, PlannedStage]) -> bool:
    """Whether all stages of a run are done."""
    return all(directory.stage(planned).done for planned in stages.values())


def _plugins(registry: Registry) -> Iterator[HookCalls]:
    for plugin in registry.plugins:
        if plugin.follows:
            yield from _calls(plugin.origin, partial(module_of, plugin))


def _trackers(loaded: LoadedRecipe) -> Iterator[HookCalls]:
    if not loaded.recipe.trackers:
        return
    from pae_framework.build import build_tracker  # loads torch

    for label, component in loaded.recipe.trackers.items():
        spec = loaded.registry.find(component.kind, component.use)
        origin = f"{spec.plugin.origin}, trackers.{label}"
        yield from _calls(origin, partial(build_tracker, component, loaded.registry))


def _calls(origin: str, build: Callable[[], object]) -> Iterator[HookCalls]:
    """The hooks of what is built; none, with a warning, if that fails."""
    try:
        with guarded(origin):
            calls = HookCalls(origin, build())
    except PluginError as error:
        logger.warning("%s cannot follow the run, which goes on: %s", origin, error)
    else:
        yield calls


def _state(error: BaseException) -> Literal["stopped", "failed"]:
    return "stopped" if isinstance(error, _Interruption) else "failed"


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
