"""The built-in trackers: one run per run directory, each line once, whatever interrupts the run."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pae_framework.launch.hook_calls import HookCalls
from pae_framework.lifecycle import (
    Artifact,
    LoggedMetrics,
    RunInfo,
    RunResult,
    StageFailure,
    StageInfo,
)
from pae_framework.metrics_file import METRICS
from pae_framework.plugins import load_registry
from pae_framework.preflight.requirements import missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.plan import plan
from pae_framework.testing import check_component
from pae_trackers.config import TrackioConfig, WandbConfig
from pae_trackers.run_tracker import read_results
from pae_trackers.state import SentState
from pae_trackers.trackio_tracker import TrackioTracker
from pae_trackers.wandb_tracker import WandbTracker

LONG = 60.0


class FakeRun:
    """Records what a tracker sends, as wandb's and trackio's runs take it."""

    def __init__(self, **opened: Any):
        self.opened = opened
        self.refused: set[float] = set()
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.axes: list[tuple[str, str]] = []
        self.stored: dict[str, list[str]] = {}
        self.summary: dict[str, float] = {}
        self.ended: list[dict[str, object]] = []

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        if refused := self.refused.intersection(values.values()):
            self.refused -= refused
            raise ConnectionError("no route")
        self.rows.append((step, dict(values)))

    def define_metric(self, name: str, step_metric: str = "", hidden: bool = False) -> None:
        self.axes.append((name, step_metric))

    def log_artifact(self, artifact: SimpleNamespace) -> None:
        self.stored[artifact.name] = artifact.files

    def finish(self, **values: object) -> None:
        self.ended.append(values)


class FakeArtifact(SimpleNamespace):
    def __init__(self, name: str, type: str):
        super().__init__(name=name, type=type, files=[])

    def add_file(self, path: str, name: str) -> None:
        assert Path(path).is_file()
        self.files.append(name)


@pytest.fixture(params=["wandb", "trackio"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A tracker with a fake of its package, and the runs that were opened."""
    runs: list[FakeRun] = []

    def init(**values: Any) -> FakeRun:
        runs.append(FakeRun(**values))
        return runs[-1]

    module: Any = ModuleType(request.param)
    module.__spec__ = importlib.machinery.ModuleSpec(request.param, None, origin="fake")
    module.init, module.Artifact = init, FakeArtifact
    module.Settings = lambda **values: values
    monkeypatch.setitem(sys.modules, request.param, module)
    builders: dict[str, Callable[[], Any]] = {
        "wandb": lambda: WandbTracker(WandbConfig()),
        "trackio": lambda: TrackioTracker(TrackioConfig()),
    }
    return SimpleNamespace(runs=runs, build=builders[request.param], module=module)


class Process:
    """One process that works on a run, whose hooks a tracker implements."""

    def __init__(self, tracker: Any, folder: Path, started: str = "2026-01-31T12:00:00+0000"):
        self.started = started
        self.calls = HookCalls("plugin pae-trackers", tracker)
        self.run = RunInfo("tiny", folder, {"seed": 3}, "pae run tiny")
        self.folder = folder
        self.tell("pae_run_started")

    def tell(self, hook: str, **arguments: object) -> None:
        self.calls.call(hook, {"run": self.run, **arguments})

    def stage(self, name: str) -> StageInfo:
        path = self.folder / "stages" / f"{name}-0123456789ab"
        path.mkdir(parents=True, exist_ok=True)
        return StageInfo(name, "0123456789ab", path, self.started)

    def log(self, name: str, steps: range, resumed: int = 0) -> None:
        for step in steps:
            metrics = LoggedMetrics(step, {"loss": 1.0 / step}, resumed)
            self.tell("pae_metrics_logged", stage=self.stage(name), metrics=metrics)

    def finish(self, name: str, files: Mapping[str, str]) -> None:
        stage = self.stage(name)
        for file, text in files.items():
            path = stage.path / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            artifact = Artifact(file, path, len(text))
            self.tell("pae_artifact_written", stage=stage, artifact=artifact)
        self.tell("pae_stage_finished", stage=stage)

    def end(self, state: Any = "done") -> None:
        self.tell("pae_run_finished", result=RunResult(state, complete=state == "done"))
        self.calls.end(LONG)

    def killed(self) -> None:
        """Nobody is told; what was told is sent."""
        self.calls.end(LONG)


def sent(runs: list[FakeRun], stage: str) -> list[float]:
    """Steps of a stage in the order they were sent, over all processes."""
    rows = [values for run in runs for _, values in run.rows]
    return [values[f"{stage}/step"] for values in rows if f"{stage}/step" in values]


def write_log(stage: StageInfo, steps: range) -> None:
    lines = [{"step": step, "loss": 1.0 / step} for step in steps]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (stage.path / METRICS).write_text(text, encoding="utf-8")


def identity(run: FakeRun) -> object:
    return run.opened.get("id") or run.opened["name"]


def test_processes_of_a_run_directory_share_one_run(service, tmp_path: Path) -> None:
    for _ in range(2):
        Process(service.build(), tmp_path / "one").end()
    Process(service.build(), tmp_path / "other").end()
    one, again, other = map(identity, service.runs)
    assert one == again
    assert one != other


@pytest.mark.parametrize("stop", ["stopped", "failed", "killed"])
def test_each_line_is_sent_once_over_an_interruption(service, tmp_path: Path, stop: str) -> None:
    first = Process(service.build(), tmp_path)
    first.log("encoder", range(1, 4))
    first.log("tokenizer", range(1, 6))
    if stop == "killed":
        first.killed()
    else:
        first.end(stop)
    second = Process(service.build(), tmp_path)
    second.log("tokenizer", range(5, 8), resumed=4)
    second.end()
    assert sent(service.runs, "encoder") == [1, 2, 3]
    assert sent(service.runs, "tokenizer") == list(range(1, 8))
    numbers = [number for run in service.runs for number, _ in run.rows]
    assert numbers == list(range(10))


def test_lines_that_an_earlier_process_could_not_send_are_sent(service, tmp_path: Path) -> None:
    first = Process(service.build(), tmp_path)
    first.log("tokenizer", range(1, 3))
    first.killed()
    write_log(first.stage("tokenizer"), range(1, 6))
    second = Process(service.build(), tmp_path)
    second.log("tokenizer", range(5, 7), resumed=4)
    second.end()
    assert sent(service.runs, "tokenizer") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("refused", [1, 3, 6], ids=["first", "middle", "last"])
@pytest.mark.parametrize("end", ["finished", "failed"])
def test_lines_after_one_that_failed_are_sent_at_the_end_of_the_stage(
    service, tmp_path: Path, end: str, refused: int
) -> None:
    process = Process(service.build(), tmp_path)
    process.calls.wait(LONG)
    (run,) = service.runs
    run.refused.add(1.0 / refused)
    process.log("tokenizer", range(1, 7))
    process.calls.wait(LONG)
    assert sent(service.runs, "tokenizer") == list(range(1, refused))
    stage = process.stage("tokenizer")
    write_log(stage, range(1, 7))
    if end == "finished":
        process.finish("tokenizer", {})
    else:
        failure = StageFailure("stopped", "stopped at step 6")
        process.tell("pae_stage_failed", stage=stage, failure=failure)
    process.end()
    assert sent(service.runs, "tokenizer") == list(range(1, 7))
    losses = [values["tokenizer/loss"] for _, values in run.rows]
    assert losses == [1.0 / step for step in range(1, 7)]


def test_results_are_stored_though_lines_cannot_be_sent(service, tmp_path: Path) -> None:
    process = Process(service.build(), tmp_path)
    process.calls.wait(LONG)
    (run,) = service.runs
    run.refused.update({1.0, 0.5})
    write_log(process.stage("report"), range(1, 3))
    process.finish("report", {"report.html": "<p>"})
    process.end()
    assert run.rows == []
    assert run.stored == {"tiny-report": ["report.html"]}


@pytest.mark.parametrize("steps", [3, 5, 8], ids=["shorter", "as_long", "longer"])
def test_a_stage_that_begins_anew_is_sent_from_its_first_line(
    service, tmp_path: Path, steps: int
) -> None:
    first = Process(service.build(), tmp_path)
    first.log("encoder", range(1, 3))
    first.log("tokenizer", range(1, 6))
    first.end()
    for resumed in (0, 2):
        again = Process(service.build(), tmp_path, started="2026-02-01T12:00:00+0000")
        again.log("tokenizer", range(resumed + 1, steps + 1), resumed)
        again.end("stopped")
    assert sent(service.runs, "encoder") == [1, 2]
    assert sent(service.runs, "tokenizer") == [*range(1, 6), *range(1, steps + 1)]
    numbers = [number for run in service.runs for number, _ in run.rows]
    assert numbers == list(range(2 + 5 + steps))


def test_reports_pictures_and_results_are_stored(service, tmp_path: Path) -> None:
    metric = {"name": "generation/fd", "label": "FD", "value": 2.5, "higher_is_better": False}
    other = {**metric, "value": 4.0, "at": {"steps": 2}}
    missing = {**metric, "name": "generation/is", "value": None}
    process = Process(service.build(), tmp_path)
    process.finish("generator", {"weights.safetensors": "weights"})
    process.finish("evaluate", {"results.json": json.dumps([metric, other, missing])})
    process.finish("report", {"report.html": "<p>", "pictures/samples.png": "png"})
    process.end()
    (run,) = service.runs
    assert run.stored == {
        "tiny-evaluate": ["results.json"],
        "tiny-report": ["report.html", "pictures/samples.png"],
    }
    results = {"generation/fd": 2.5, "generation/fd@steps=2": 4.0}
    assert (run.summary or run.rows[-1][1]) == results
    assert len(run.ended) == 1


def test_a_service_that_cannot_be_opened_is_reported_once(
    service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**values: object) -> None:
        raise SystemExit("no login")

    service.module.init = refuse
    process = Process(service.build(), tmp_path)
    process.log("tokenizer", range(1, 4))
    process.finish("report", {"report.html": "<p>"})
    process.end()
    (message,) = caplog.messages
    assert "pae_run_started" in message
    assert "no login" in message


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_wandb_gets_a_step_axis_per_stage_and_stays_offline(service, tmp_path: Path) -> None:
    process = Process(service.build(), tmp_path)
    process.log("encoder", range(1, 3))
    process.log("tokenizer", range(1, 3))
    process.end("failed")
    (run,) = service.runs
    assert run.opened["mode"] == "offline"
    assert Path(run.opened["dir"]).is_relative_to(tmp_path)
    assert run.opened["config"] == {"seed": 3}
    assert run.axes == [
        *(("encoder/step", ""), ("encoder/*", "encoder/step")),
        *(("tokenizer/step", ""), ("tokenizer/*", "tokenizer/step")),
    ]
    assert run.ended == [{"exit_code": 1}]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"id": ""}', '{"step": "4"}'])
def test_damaged_state_is_replaced(tmp_path: Path, content: str) -> None:
    state = SentState(tmp_path, "wandb-pae")
    stage = StageInfo("tokenizer", "0123456789ab", tmp_path / "tokenizer-0123456789ab")
    known = state.id()
    for name in ("run.json", "tokenizer-0123456789ab.json"):
        (state.folder / name).write_text(content, encoding="utf-8")
    assert state.last_step(stage) == 0
    assert state.rows() == 0
    again = state.id()
    assert again not in ("", known)
    assert SentState(tmp_path, "wandb-pae").id() == again
    assert [path.name for path in state.folder.iterdir() if path.name.startswith(".")] == []


def test_results_without_a_value_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('[{"name": "a/b", "value": null}]', encoding="utf-8")
    assert read_results(tmp_path / "r.json") == {}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_package_is_found_before_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("pae_trackers.config.find_spec", lambda package: None)
    loaded = load_recipe("quickstart", [f"trackers={{{name}: {{}}}}"], load_registry())
    (problem,) = missing_requirements([loaded])
    assert f"pae-framework[{name}]" in problem.message
    assert problem.path == f"trackers.{name}"


def test_a_folder_of_that_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trackio").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    assert TrackioConfig().missing() is not None


def test_trackers_change_no_fingerprint() -> None:
    registry = load_registry()
    plain = load_recipe("quickstart", [], registry).recipe
    overrides = ["trackers={wandb: {project: other, mode: online}, trackio: {}}"]
    followed = load_recipe("quickstart", overrides, registry).recipe
    assert plan(plain, registry) == plan(followed, registry)
    assert set(followed.trackers) == {"wandb", "trackio"}


@pytest.mark.network
def test_real_wandb_follows_an_interrupted_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    check_component(WandbTracker, WandbConfig())
    for resumed in (0, 4):
        process = Process(WandbTracker(WandbConfig()), tmp_path)
        process.log("tokenizer", range(resumed + 1, resumed + 6), resumed)
        process.finish("report", {"report.html": "<p>"})
        process.end()
    runs = [path.name for path in tmp_path.rglob("offline-run-*")]
    assert len(runs) == 2
    assert len({name.rpartition("-")[2] for name in runs}) == 1
    assert SentState(tmp_path, "wandb-pae").last_step(process.stage("tokenizer")) == 9


@pytest.mark.network
def test_real_trackio_follows_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    trackio = pytest.importorskip("trackio")
    for resumed in (0, 4):
        process = Process(TrackioTracker(TrackioConfig()), tmp_path)
        process.log("tokenizer", range(resumed + 1, resumed + 6), resumed)
        process.finish("report", {"report.html": "<p>"})
        process.end()
    (run,) = trackio.Api().runs("pae")
    assert run.name.startswith("tiny-")
    assert SentState(tmp_path, "trackio-pae").last_step(process.stage("tokenizer")) == 9
