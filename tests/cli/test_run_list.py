"""`pae status` without a run: the runs of `runs/`, one line each."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from card_runs import finished_run, metric

from pae_framework.runs.locks import holding
from pae_framework.system.durations import format_age
from pae_framework.testing.pytest import Pae


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def listed(pae: Pae) -> dict[str, dict[str, Any]]:
    document = pae("status", "--json").ok().json
    assert document["schema"] == "status/1"
    return {Path(run["path"]).name: run for run in document["listed"]}


def set_state(stage: Path, state: str) -> None:
    """Let an old run's record say something else; its version kept no digest."""
    record = stage / "stage.json"
    content = {**json.loads(record.read_text()), "state": state}
    record.write_text(json.dumps(content))


def test_a_finished_run_is_one_line_with_its_metric_of_generation(pae: Pae, runs: Path) -> None:
    finished_run(runs / "a", [metric(value=19.5), metric("generation/fd_small_cnn", 2.25)])
    heading, line = pae("status").ok().out.splitlines()
    assert heading.split() == ["run", "state", "stages", "age", "metric"]
    assert line.split()[:3] == ["runs/a", "done", "9/9"]
    assert "gFD" in line
    assert "2.25" in line
    run = listed(pae)["a"]
    assert (run["path"], run["done"], run["stages"]) == (str(runs / "a"), 9, 9)
    assert run["metric"]["value"] == 2.25


def test_without_samples_the_first_metric_counts(pae: Pae, runs: Path) -> None:
    finished_run(runs / "a", [metric(value=19.5)])
    assert listed(pae)["a"]["metric"]["value"] == 19.5


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"generator": "failed"}, "failed"),
        ({"generator": "stopped"}, "stopped"),
        ({"generator": "running"}, "stopped"),  # no process holds it
        ({"generator": "pending", "sample": "pending"}, "pending"),
        ({"tokenizer": "stopped", "generator": "failed"}, "failed"),
    ],
)
def test_the_state_is_that_of_the_most_telling_stage(
    pae: Pae, runs: Path, states: dict[str, str], expected: str
) -> None:
    finished_run(runs / "a")
    for stage, state in states.items():
        set_state(runs / "a" / stage, state)
    run = listed(pae)["a"]
    assert (run["state"], run["done"]) == (expected, 9 - len(states))


def test_a_stage_that_a_process_holds_runs(pae: Pae, runs: Path) -> None:
    stage = finished_run(runs / "a") / "generator"
    set_state(stage, "running")
    with holding(stage.resolve()):
        assert listed(pae)["a"]["state"] == "running"


@pytest.mark.parametrize("damage", ["", "[]", "{", "\0"])
def test_a_damaged_run_hides_no_other(pae: Pae, runs: Path, damage: str) -> None:
    finished_run(runs / "a")
    (finished_run(runs / "b") / "run.json").write_text(damage)
    answer = pae("status").ok()
    assert len(answer.out.splitlines()) == 3
    assert str(Path("runs/b/run.json")) in answer.err
    assert {name: run["state"] for name, run in listed(pae).items()} == {
        "a": "done",
        "b": "damaged",
    }


def test_the_last_changed_comes_first_and_times_are_numbers_and_iso(pae: Pae, runs: Path) -> None:
    for name, age in (("old", 7200), ("new", 60)):
        for record in [*finished_run(runs / name).rglob("*.json")]:
            time = datetime.now().timestamp() - age
            os.utime(record, (time, time))
    found = listed(pae)
    assert list(found) == ["new", "old"]
    assert found["old"]["age_seconds"] == pytest.approx(7200, abs=60)
    assert datetime.fromisoformat(found["old"]["changed"]).utcoffset() is not None


def test_no_runs(pae: Pae) -> None:
    answer = pae("status").ok()
    assert answer.out == ""
    assert "runs" in answer.err
    assert pae("status", "--json").json == {"schema": "status/1", "listed": []}


def test_a_comparison_needs_a_run(pae: Pae) -> None:
    assert "RUN" in pae("status", "--recipe", "quickstart").fails(2).err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 min"), (59, "0 min"), (3599, "59 min"), (3600, "1 h"), (86399, "23 h"), (86400, "1 d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert format_age(seconds) == text
