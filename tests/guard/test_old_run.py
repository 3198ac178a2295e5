"""Runs that an earlier version wrote go on and open. What they are: earlier.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from earlier import (
    FINISHED,
    OLD,
    STAGES,
    STOPPED_AT,
    came_to,
    copy_of,
    log,
    machine,
    outcome,
)
from observe import drive
from PIL import Image

COMMANDS = {
    "status of the stopped run": ["status", "stopped", "--json"],
    "run": ["run", "stopped/resolved.yaml", "--run-dir", "stopped"],
    "status": ["status", "finished", "--json"],
    "sample": ["sample", "finished", "--count", "2"],
    "report": ["report", "finished"],
    "run of the finished run": ["run", "finished/resolved.yaml", "--run-dir", "finished"],
}


class Continued(NamedTuple):
    """Copies of both old runs after COMMANDS, and what these printed."""

    stopped: Path
    finished: Path
    out: dict[str, str]


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Continued:
    folder = tmp_path_factory.mktemp("old")
    runs = [copy_of(name, folder) for name in ("stopped", "finished")]
    answers = drive(folder, *COMMANDS.values())
    out = {name: answer["out"] for name, answer in zip(COMMANDS, answers, strict=True)}
    return Continued(*runs, out)


def states(out: str) -> dict[str, str]:
    rows = json.loads(out)["old_run"]
    return {row["stage"]: row["state"] for row in rows}


def test_status_tells_where_the_stopped_run_is(continued: Continued):
    found = states(continued.out["status of the stopped run"])
    assert found == {
        **dict.fromkeys(STAGES, "pending"),
        **dict.fromkeys(FINISHED, "done"),
        "tokenizer": "stopped",
    }


def test_finished_stages_are_not_trained_again(continued: Continued):
    assert continued.out["run"].count("cached") == len(FINISHED)
    for stage in FINISHED:
        for name in ("stage.json", "metrics.jsonl", "weights.safetensors"):
            before, after = (run / stage / name for run in (OLD / "stopped", continued.stopped))
            assert after.read_bytes() == before.read_bytes()


def test_the_tokenizer_goes_on_from_its_checkpoint(continued: Continued):
    before, after = (log(run, "tokenizer") for run in (OLD / "stopped", continued.stopped))
    assert [line["step"] for line in after] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert after[:STOPPED_AT] == before  # with the times they took then: none was taken again


def test_it_comes_to_what_the_uninterrupted_run_came_to(continued: Continued):
    found, expected = came_to(continued.stopped), outcome()
    if machine() == expected.pop("machine"):
        assert found == expected  # to the last bit
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    names, values = zip(*found["metrics"], strict=True)
    expected_names, expected_values = zip(*expected["metrics"], strict=True)
    assert names == expected_names
    assert values == pytest.approx(expected_values, rel=1e-4)


def test_the_stages_have_the_names_they_had(continued: Continued):
    def links(run: Path) -> dict[str, str]:
        return {stage: str((run / stage).readlink()) for stage in STAGES}

    assert links(continued.stopped) == links(OLD / "finished")


def test_a_finished_run_is_done_and_stays_so(continued: Continued):
    assert states(continued.out["status"]) == dict.fromkeys(STAGES, "done")
    assert continued.out["run of the finished run"].count("cached") == len(STAGES)


def test_a_finished_run_still_draws_its_images(continued: Continued):
    with np.load(OLD / "finished" / "sample" / "samples-step000004-euler003.npz") as file:
        kept = file["arr_0"][:2].astype(int)
    drawn = [
        np.asarray(Image.open(continued.finished / "drawn" / f"{index:06d}.png").convert("RGB"))
        for index in range(2)
    ]
    assert abs(np.stack(drawn).astype(int) - kept).max() <= 1


def test_a_finished_run_still_gets_its_report(continued: Continued):
    page = (continued.finished / "report.html").read_text(encoding="utf-8")
    assert "old_run" in page
