"""What plugins are told about a run, its stages, metrics and files."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pae_framework import hookimpl, hookspecs, lifecycle
from pae_framework.errors import RunError, StoppedError
from pae_framework.launch.hook_calls import HookCalls
from pae_framework.launch.local import LocalLauncher
from pae_framework.launch.run_hooks import RunHooks, hooks_of_run
from pae_framework.lifecycle import LoggedMetrics, RunInfo, RunResult, StageFailure
from pae_framework.metrics_file import read_log
from pae_framework.plugins import load_registry, with_files
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.system.stopping import Interruption, interrupted_by

PLANNED = PlannedStage("encoder", "0123456789ab", ())
STARTED = "2026-01-31T12:00:00+0000"
RUN = RunInfo("tiny", Path("/runs/tiny"), {}, "pae run tiny")


class Listener:
    """Implements every hook, and keeps what it is told as (hook, arguments without the run)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def calls(self) -> HookCalls:
        def implementation(name: str) -> Any:
            spec = getattr(hookspecs, name)
            names = [argument for argument in spec.__annotations__ if argument != "return"]
            scope: dict[str, Any] = {"told": self.told}
            kept = ", ".join(f"{argument}={argument}" for argument in names if argument != "run")
            exec(f"def {name}({', '.join(names)}): told.append(({name!r}, dict({kept})))", scope)
            return hookimpl(scope[name])

        hooks = {name: implementation(name) for name in hookspecs.LIFE_CYCLE}
        return HookCalls("plugin listener (tests)", SimpleNamespace(**hooks))

    def names(self) -> list[str]:
        return [name.removeprefix("pae_") for name, _ in self.told]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def record(tmp_path: Path) -> Iterator[StageRecord]:
    folder = tmp_path / PLANNED.folder
    folder.mkdir()
    record = StageRecord(folder)
    with record.lock(None):
        yield record


def work(hooks: RunHooks, record: StageRecord, error: BaseException | None = None) -> None:
    """A stage that logs a line, leaves a file and may fail."""
    with (
        hooks.following(lambda: True),
        hooks.stage(PLANNED, record, STARTED) as metrics_logged,
        record.working({}),
    ):
        (record.path / "sub").mkdir(exist_ok=True)
        (record.path / "sub" / "weights.safetensors").write_bytes(b"12345")
        metrics_logged(LoggedMetrics(2, {"loss": 0.5}, 0))
        if error is not None:
            raise error


def test_a_stage_that_succeeds(listener: Listener, record: StageRecord) -> None:
    work(RunHooks(RUN, lambda: [listener.calls()]), record)
    assert listener.names() == [
        *("run_started", "stage_started", "metrics_logged", "artifact_written"),
        *("stage_finished", "run_finished"),
    ]
    told = dict(listener.told)
    artifact = told["pae_artifact_written"]["artifact"]
    assert (artifact.name, artifact.size) == ("sub/weights.safetensors", 5)
    assert artifact.path == record.path / "sub" / "weights.safetensors"
    assert told["pae_run_finished"] == {"result": RunResult("done", complete=True)}
    stage = told["pae_stage_started"]["stage"]
    assert (stage.name, stage.fingerprint, stage.path) == ("encoder", "0123456789ab", record.path)
    assert stage.started == STARTED


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RunError("the disk is full"), "failed"),
        (StoppedError("stopped at step 2"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (ValueError(), "failed"),
        (SystemExit(1), "failed"),
    ],
    ids=repr,
)
def test_a_stage_that_does_not_finish(
    listener: Listener, record: StageRecord, error: BaseException, state: Any
) -> None:
    with pytest.raises(type(error)):
        work(RunHooks(RUN, lambda: [listener.calls()]), record, error)
    assert listener.names()[-2:] == ["stage_failed", "run_finished"]
    told = dict(listener.told)
    text = str(error) or type(error).__name__
    assert told["pae_stage_failed"]["failure"] == StageFailure(state, text)
    assert told["pae_run_finished"]["result"] == RunResult(state, complete=False, error=text)
    assert "pae_artifact_written" not in told


def test_nobody_is_told_of_a_run_without_an_unfinished_stage(listener: Listener) -> None:
    with RunHooks(RUN, lambda: [listener.calls()]).following(lambda: True):
        pass
    assert listener.told == []


def test_every_argument_is_immutable_typed_data() -> None:
    kinds = [kind for kind in vars(lifecycle).values() if dataclasses.is_dataclass(kind)]
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
    names = {kind.__name__ for kind in kinds}
    for hook in hookspecs.LIFE_CYCLE:
        annotations = dict(getattr(hookspecs, hook).__annotations__)
        assert annotations.pop("return") == "None"
        assert set(annotations.values()) <= names, hook


PLUGIN = '''\
"""Follows a run into a file, and fails, exits or prints in some of its hooks."""

import json
from pathlib import Path

from pae_framework import hookimpl

pae_api = 1
LINES = Path(__file__).with_suffix(".jsonl")


def add(*values):
    print("printed")
    with LINES.open("a") as file:
        file.write(json.dumps(values) + "\\n")


@hookimpl
def pae_run_started(run):
    add("run", run.name, str(run.path), run.recipe["seed"])
    raise SystemExit(1)


@hookimpl
def pae_stage_started(stage):
    add("start", stage.name, stage.started)


@hookimpl
def pae_metrics_logged(stage, metrics):
    add("line", stage.name, metrics.step, metrics.resumed_from, metrics.values["loss"])


@hookimpl
def pae_run_finished(result):
    add("end", result.state, result.complete)
'''


def test_a_plugin_file_follows_a_run(
    tmp_path: Path,
    tiny_recipe: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("follows_runs.py").write_text(PLUGIN, encoding="utf-8")
    registry = load_registry()
    overrides = [f"plugins=[{tmp_path / 'follows_runs.py'}]", "extractor.train.log_every=2"]
    loaded = load_recipe(tiny_recipe, overrides, registry)
    run, launcher = RunDirectory.at(Path("run")), LocalLauncher(PlainConsole(quiet=True))
    for _ in range(2):  # the second run finds the stage cached
        launcher.run(loaded, run, "pae run tiny", until="extractor")
    folder = run.path.absolute() / "extractor"
    losses = {record["step"]: record["loss"] for record in read_log(folder / "metrics.jsonl")}
    lines = [json.loads(line) for line in Path("follows_runs.jsonl").read_text().splitlines()]
    assert lines == [
        ["run", "tiny", str(run.path.absolute()), 0],
        ["start", "extractor", StageRecord(folder).info["started"]],
        *(["line", "extractor", step, 0, losses[step]] for step in (2, 4, 6)),
        ["end", "done", False],
    ]
    warned = [message for message in caplog.messages if "follows_runs" in message]
    assert [message.count("pae_run_started") for message in warned] == [1]


@pytest.mark.parametrize(
    ("hook", "fact"),
    [
        ("pae_stage_begun(stage)", "did you mean pae_stage_"),
        ("pae_metric_logged(metrics)", "did you mean pae_metrics_logged"),
        ("pae_metrics_logged(losses)", "losses"),
        ("pae_run_started(run, stage)", "stage"),
    ],
)
def test_a_hook_or_argument_that_does_not_exist_breaks_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, fact: str
) -> None:
    monkeypatch.delitem(sys.modules, "has_wrong_hook", raising=False)
    path = tmp_path / "has_wrong_hook.py"
    head = "from pae_framework import hookimpl\npae_api = 1\n@hookimpl\n"
    path.write_text(f"{head}def {hook}: ...\n", encoding="utf-8")
    (plugin,) = with_files(Registry(), [path]).plugins
    assert fact in (plugin.error or "")


TRACKER = """\
import os, signal
from pae_framework import hookimpl
from pae_framework.config import TrackerConfig
from pae_framework.contracts import Tracker
pae_api = 1
@hookimpl
def pae_register_trackers(register):
    register("slow", target="slow_tracker:Slow", config="slow_tracker:SlowConfig", summary="Slow.")
class SlowConfig(TrackerConfig): ...
class Slow(Tracker):
    def __init__(self, config):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): ...
"""


def test_a_signal_while_a_tracker_is_built_stops_the_run(
    record: StageRecord, tmp_path: Path, tiny_recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "slow_tracker.py"
    path.write_text(TRACKER, encoding="utf-8")
    changes = [f"plugins=[{path}]", "trackers.mine.use=slow"]
    loaded = load_recipe(tiny_recipe, changes, load_registry())
    hooks = hooks_of_run(loaded, RunDirectory.at(tmp_path / "run"), "pae run")
    with pytest.raises(Interruption) as stop, interrupted_by([signal.SIGTERM]):
        work(hooks, record)
    assert stop.value.number == signal.SIGTERM
    assert caplog.messages == []


def test_a_plugin_that_can_no_longer_be_imported_is_reported(
    record: StageRecord,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_recipe: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "vanishes_later.py"
    request.addfinalizer(lambda: sys.modules.pop(path.stem, None))  # later tests would send it
    path.write_text(PLUGIN, encoding="utf-8")
    loaded = load_recipe(tiny_recipe, [f"plugins=[{path}]"], load_registry())
    path.unlink()
    work(hooks_of_run(loaded, RunDirectory.at(tmp_path / "run"), "pae run"), record)
    (message,) = caplog.messages
    assert "vanishes_later" in message
