"""The built-in plugin that writes logged metrics for TensorBoard."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pae_trackers
from pae_framework.launch.hook_calls import HookCalls
from pae_framework.lifecycle import LoggedMetrics, RunInfo, StageFailure, StageInfo

RUN = RunInfo("tiny", Path("/runs/tiny"), {}, "pae run tiny")
LONG = 60.0


@contextmanager
def training(folder: Path) -> Iterator[HookCalls]:
    calls = HookCalls("plugin pae-trackers", pae_trackers)
    yield calls
    calls.call("pae_stage_finished", {"run": RUN, "stage": stage(folder)})
    calls.end(LONG)


def stage(folder: Path) -> StageInfo:
    return StageInfo("tokenizer", "0123456789ab", folder)


def failed(folder: Path) -> dict[str, Any]:
    return {"run": RUN, "stage": stage(folder), "failure": StageFailure("failed", "disk full")}


def log(calls: HookCalls, folder: Path, step: int, resumed: int = 0, **values: float) -> None:
    metrics = LoggedMetrics(step, values, resumed)
    calls.call("pae_metrics_logged", {"run": RUN, "stage": stage(folder), "metrics": metrics})


def scalars(folder: Path) -> Mapping[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_each_value_has_its_name_as_tag(tmp_path: Path) -> None:
    with training(tmp_path) as calls:
        log(calls, tmp_path, 2, loss=0.5, lr=0.25)
        log(calls, tmp_path, 4, loss=0.125)
    assert scalars(tmp_path) == {"loss": [(2, 0.5), (4, 0.125)], "lr": [(2, 0.25)]}


def test_steps_after_the_resumed_one_are_replaced(tmp_path: Path) -> None:
    with training(tmp_path) as calls:
        for step in (1, 2, 3):
            log(calls, tmp_path, step, loss=1.0)
    with training(tmp_path) as calls:
        log(calls, tmp_path, 3, resumed=2, loss=2.0)
    assert scalars(tmp_path) == {"loss": [(1, 1.0), (2, 1.0), (3, 2.0)]}


def test_lines_that_came_from_another_folder_are_written_too(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": float(step)} for step in (1, 2, 3)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    with training(tmp_path) as calls:
        log(calls, tmp_path, 3, resumed=2, loss=3.0)
    assert scalars(tmp_path) == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0)]}


@contextmanager
def full_disk() -> Iterator[None]:
    """Files can grow to 16 KiB only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


NAME = "a" * 100
LINES = 400


@pytest.fixture
def interrupted(tmp_path: Path) -> HookCalls:
    """After a training that logged more than fits on the disk, which now has space again."""
    lines = [json.dumps({"step": step, NAME: float(step)}) for step in range(1, LINES)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    calls = HookCalls("plugin pae-trackers", pae_trackers)
    with full_disk():
        for step in range(1, LINES):
            log(calls, tmp_path, step, 0, **{NAME: float(step)})
        calls.wait(LONG)
    return calls


def test_lines_that_could_not_be_written_follow_at_the_end_of_the_stage(
    tmp_path: Path, interrupted: HookCalls
) -> None:
    assert scalars(tmp_path)[NAME][-1][0] < LINES - 1
    interrupted.call("pae_stage_finished", {"run": RUN, "stage": stage(tmp_path)})
    interrupted.end(LONG)
    assert scalars(tmp_path) == {NAME: [(step, float(step)) for step in range(1, LINES)]}


def test_lines_that_could_not_be_written_follow_when_the_training_resumes(
    tmp_path: Path, interrupted: HookCalls
) -> None:
    with full_disk():
        interrupted.call("pae_stage_failed", failed(tmp_path))
        interrupted.end(LONG)
    with training(tmp_path) as resumed:
        log(resumed, tmp_path, LINES, LINES - 1, **{NAME: float(LINES)})
    assert scalars(tmp_path) == {NAME: [(step, float(step)) for step in range(1, LINES + 1)]}


def test_a_stage_without_metrics_has_no_files(tmp_path: Path) -> None:
    with training(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_and_nothing_else_is_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with training(tmp_path) as calls:
        log(calls, tmp_path, 0, loss=1.0)
        calls.wait(LONG)
        with full_disk():
            for step in range(2000):
                log(calls, tmp_path, step, 0, **{NAME: 1.0})
            calls.wait(LONG)
            calls.call("pae_stage_failed", failed(tmp_path))
            calls.wait(LONG)
    assert "pae_metrics_logged" in caplog.messages[0]
    assert all("pae-trackers" in message for message in caplog.messages)
    assert capfd.readouterr() == ("", "")
