"""Runs written by an earlier version can be resumed and read. old_runs.py describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from collected import run_commands
from old_runs import (
    FINISHED,
    OLD,
    STAGES,
    STOPPED_AT,
    copy_of,
    expected_values,
    final_values,
    log,
    machine,
)
from PIL import Image

COMMANDS = {
    "status of the stopped run": ["status", "stopped", "--json"],
    "dry run of the stopped run": [
        *("run", "stopped/resolved.yaml", "--run-dir", "stopped"),
        *("--dry-run", "--json"),
    ],
    "run": ["run", "stopped/resolved.yaml", "--run-dir", "stopped"],
    "status": ["status", "finished", "--json"],
    "sample": ["sample", "finished", "--count", "2"],
    "report": ["report", "finished"],
    "run of the finished run": ["run", "finished/resolved.yaml", "--run-dir", "finished"],
}


class Continued(NamedTuple):
    """Copies of both old runs after COMMANDS, and the output of each command."""

    stopped: Path
    finished: Path
    out: dict[str, str]
    err: dict[str, str]


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Continued:
    folder = tmp_path_factory.mktemp("old")
    runs = [copy_of(name, folder) for name in ("stopped", "finished")]
    answers = run_commands(folder, *COMMANDS.values())
    out, err = (
        {name: answer[key] for name, answer in zip(COMMANDS, answers, strict=True)}
        for key in ("out", "err")
    )
    return Continued(*runs, out, err)


def read_results(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "evaluate" / "results.json").read_bytes())


def states(out: str) -> dict[str, str]:
    rows = json.loads(out)["runs"]["old_run"]
    return {row["stage"]: row["state"] for row in rows}


def test_status_of_stopped_run(continued: Continued):
    assert states(continued.out["status of the stopped run"]) == {
        **dict.fromkeys(STAGES, "pending"),
        **dict.fromkeys(FINISHED, "done"),
        "tokenizer": "stopped",
    }


def test_dry_run_of_stopped_run(continued: Continued):
    stages = json.loads(continued.out["dry run of the stopped run"])["stages"]
    assert {row["stage"]: row["state"] for row in stages} == {
        **dict.fromkeys(STAGES, "runs"),
        **dict.fromkeys(FINISHED, "done"),
        "tokenizer": "goes on",
    }


def test_finished_stages_are_not_trained_again(continued: Continued):
    assert continued.err["run"].count("cached") == len(FINISHED)
    for stage in FINISHED:
        before, after = (run / stage for run in (OLD / "stopped", continued.stopped))
        for name in ("metrics.jsonl", "weights.safetensors"):
            assert (after / name).read_bytes() == (before / name).read_bytes()
        records = [json.loads((folder / "stage.json").read_bytes()) for folder in (before, after)]
        results = records[1].pop("results")
        assert records[1].pop("digest")
        assert records[1].pop("hashed")["stage"] == stage
        assert records[0] == records[1]
        assert results.keys() >= {"weights.safetensors"}
        assert all(
            (after / name).stat().st_size == facts["size"] for name, facts in results.items()
        )


def test_results_are_recorded_on_the_first_visit_with_one_line_per_stage(continued: Continued):
    lines = continued.err["run"].splitlines()
    told = [line.split()[0] for line in lines if "earlier version" in line]
    assert told == list(FINISHED)
    for stage in STAGES:
        record = json.loads((continued.finished / stage / "stage.json").read_bytes())
        assert "results" in record


def test_tokenizer_resumes_from_its_checkpoint(continued: Continued):
    before, after = (log(run, "tokenizer") for run in (OLD / "stopped", continued.stopped))
    assert [line["step"] for line in after] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert after[:STOPPED_AT] == before  # including the timings: no step was repeated


def test_resumed_run_equals_uninterrupted_run(continued: Continued):
    actual, expected = final_values(continued.stopped), expected_values()
    known = {name for name, _ in expected["metrics"]}
    added = {name for name, _ in actual["metrics"]} - known
    references = {name for name in added if name.startswith("manifold/")}
    assert added - references == {"reconstruction/psnr_pooled", "reconstruction/perceptual"}
    assert all(
        "reference" in metric["subject"]
        for metric in read_results(continued.stopped)
        if metric["name"] in references
    )
    actual["metrics"] = [[name, value] for name, value in actual["metrics"] if name in known]
    if machine() == expected.pop("machine"):
        assert actual == expected  # bit for bit
    assert actual["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    names, values = zip(*actual["metrics"], strict=True)
    expected_names, expected_metrics = zip(*expected["metrics"], strict=True)
    assert names == expected_names
    assert values == pytest.approx(expected_metrics, rel=1e-4)


def test_folders_of_stages_have_the_same_names(continued: Continued):
    def links(run: Path) -> dict[str, str]:
        return {stage: str((run / stage).readlink()) for stage in STAGES}

    assert links(continued.stopped) == links(OLD / "finished")


def test_finished_run_is_done_and_nothing_runs_again(continued: Continued):
    assert states(continued.out["status"]) == dict.fromkeys(STAGES, "done")
    assert continued.err["run of the finished run"].count("cached") == len(STAGES)


def test_the_verdict_on_a_finished_run_says_what_it_lacks(continued: Continued):
    rows = json.loads(continued.out["status"])["runs"]["old_run"]
    (verdict,) = [row["verdict"] for row in rows if "verdict" in row]
    assert verdict["answer"] == "undecided"
    assert "pae evaluate RUN --again" in verdict["sentence"]
    page = (continued.finished / "report.html").read_text(encoding="utf-8")
    for shown in (page, continued.out["run of the finished run"]):
        assert "easy to diffuse in" in shown


def test_the_finished_run_keeps_its_description(continued: Continued):
    for name in ("run.json", "environment.json", "recipe.yaml", "overrides.txt", "resolved.yaml"):
        before, after = (run / name for run in (OLD / "finished", continued.finished))
        assert after.read_bytes() == before.read_bytes()


def test_finished_run_still_samples_the_same_images(continued: Continued):
    with np.load(OLD / "finished" / "sample" / "samples-step000004-euler003.npz") as file:
        expected = file["arr_0"][:2].astype(int)
    sampled = [
        np.asarray(Image.open(continued.finished / "drawn" / f"{index:06d}.png").convert("RGB"))
        for index in range(2)
    ]
    assert abs(np.stack(sampled).astype(int) - expected).max() <= 1


def test_report_of_finished_run(continued: Continued):
    page = (continued.finished / "report.html").read_text(encoding="utf-8")
    assert "old_run" in page
