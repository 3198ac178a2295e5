"""The contract of trackers, and of plugins with life-cycle hooks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pluggy

from pae_framework import hookspecs
from pae_framework.lifecycle import (
    Artifact,
    LoggedMetrics,
    RunInfo,
    RunResult,
    StageFailure,
    StageInfo,
)
from pae_framework.metrics_file import METRICS
from pae_framework.testing.expect import expect

_Call = tuple[str, dict[str, Any]]


def check_follower(build: Callable[[], object]) -> None:
    """Tell a tracker, or the module of a plugin, of a run that is stopped and resumes.

    The run is in a temporary directory. The follower implements life-cycle hooks, marked with
    ``hookimpl``, with arguments that they have. None raises, also in the process that resumes.

    Args:
        build: gives it; called for each of the two processes.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = RunInfo("tiny", Path(folder), {"name": "tiny", "seed": 0}, "pae run tiny")
        stage = StageInfo("tokenizer", "0123456789ab", Path(folder, "tokenizer-0123456789ab"))
        stage.path.mkdir()
        for calls in (_stopped(stage), _resumed(stage)):
            hooks = _hooks_of(build())
            for hook, arguments in calls:
                getattr(hooks, hook)(**{"run": run, **arguments})


def _hooks_of(follower: object) -> pluggy.HookRelay:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(follower)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        text = f"{error}; hooks are {', '.join(hookspecs.LIFE_CYCLE)}"
        raise AssertionError(text) from error
    callers = manager.get_hookcallers(follower) or []
    expect(
        any(caller.name in hookspecs.LIFE_CYCLE for caller in callers),
        f"{type(follower).__name__} implements no life-cycle hook; mark its methods with @hookimpl",
    )
    return manager.hook


def _stopped(stage: StageInfo) -> Iterator[_Call]:
    yield "pae_run_started", {}
    yield "pae_stage_started", {"stage": stage}
    yield from _lines(stage, range(1, 5), 0)
    failure = StageFailure("stopped", "stopped at step 4 of 6")
    yield "pae_stage_failed", {"stage": stage, "failure": failure}
    yield "pae_run_finished", {"result": RunResult("stopped", complete=False, error=failure.error)}


def _resumed(stage: StageInfo) -> Iterator[_Call]:
    yield "pae_run_started", {}
    yield "pae_stage_started", {"stage": stage}
    yield from _lines(stage, range(3, 7), 2)
    file = stage.path / "report.html"
    file.write_text("<p>report</p>", encoding="utf-8")
    artifact = Artifact(file.name, file, file.stat().st_size)
    yield "pae_artifact_written", {"stage": stage, "artifact": artifact}
    yield "pae_stage_finished", {"stage": stage}
    yield "pae_run_finished", {"result": RunResult("done", complete=True)}


def _lines(stage: StageInfo, steps: range, resumed_from: int) -> Iterator[_Call]:
    for step in steps:
        values = {"loss": 1 / step, "lr": 1e-3}
        with (stage.path / METRICS).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")
        metrics = LoggedMetrics(step, values, resumed_from)
        yield "pae_metrics_logged", {"stage": stage, "metrics": metrics}
