"""The record of the jobs of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pae_framework.errors import RunError
from pae_framework.runs.jobs import COMPARISON, RunJobs, Start, SubmittedStage, resuming


def submitted(stage: str, job: str, **changes: Any) -> SubmittedStage:
    """A stage in a job."""
    values: dict[str, Any] = {
        "stage": stage,
        "fingerprint": "0f",
        "folder": f"{stage}-0f",
        "job": job,
        "executor": "slurm",
        "profile": "cluster",
        "host": "login",
        "resources": {"nodes": 1},
        "submitted": "2026-01-01T00:00:00+0000",
        "depends_on": [],
        "snapshot": "recipe-0f.yaml",
        "sources": {},
    }
    return SubmittedStage(**{**values, **changes})


def start(job: str, progress: int = 0, restarts: int = 0) -> Start:
    return Start(job=job, restarts=restarts, time="now", host="node1", progress=progress)


def test_a_run_without_jobs_has_none(tmp_path: Path) -> None:
    jobs = RunJobs(tmp_path)
    assert jobs.submitted == []
    assert jobs.starts("encoder-0f") == []
    assert not jobs.is_canceled("1")


def test_later_submissions_are_added_to_earlier_ones(tmp_path: Path) -> None:
    first, second = submitted("encoder", "1"), submitted("generator", "2", depends_on=["1"])
    RunJobs(tmp_path).add([first])
    RunJobs(tmp_path).add([second])
    assert RunJobs(tmp_path).submitted == [first, second]


def test_a_task_of_an_array_has_the_id_that_slurm_writes(tmp_path: Path) -> None:
    task = submitted("encoder", "12", array_index=3)
    assert task.id == "12_3"
    assert RunJobs(tmp_path).log(task.id, rank=2) == tmp_path / "jobs" / "12_3_2_log.out"
    assert submitted("encoder", "12").id == "12"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"slurm"', '"elsewhere"'),
        lambda text: json.dumps({"version": 1, "jobs": [{"stage": "encoder"}]}),
    ],
)
def test_a_damaged_record_is_named_with_what_to_do(tmp_path: Path, damage: Any) -> None:
    jobs = RunJobs(tmp_path)
    jobs.add([submitted("encoder", "1")])
    jobs.file.write_text(damage(jobs.file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(RunError, match=r"jobs\.json"):
        _ = jobs.submitted


def test_jobs_that_wait_are_found_through_others_and_through_arrays(tmp_path: Path) -> None:
    jobs = RunJobs(tmp_path)
    jobs.add(
        [
            submitted("encoder", "1"),
            submitted("extractor", "2"),
            submitted("tokenizer", "3", depends_on=["1"]),
            submitted("generator", "4", array_index=0, depends_on=["3"]),
            submitted(COMPARISON, "5", depends_on=["4"], whatever=True),
        ]
    )
    assert [stage.stage for stage in jobs.waiting_for("1")] == ["tokenizer", "generator"]
    assert jobs.waiting_for("2") == []
    assert jobs.waiting_for("4_0") == []  # the comparison starts whatever happens


def test_starts_are_kept_in_order_and_a_broken_last_line_is_left_out(tmp_path: Path) -> None:
    jobs = RunJobs(tmp_path)
    starts = [start("1"), start("1", progress=5, restarts=1)]
    for each in starts:
        jobs.add_start("encoder-0f", each)
    jobs.add_start("other-0f", start("2"))
    (file,) = jobs.folder.glob("starts-encoder-0f*")
    with file.open("a", encoding="utf-8") as lines:
        lines.write('{"job": "1", "rest')
    assert jobs.starts("encoder-0f") == starts


@pytest.mark.parametrize(
    ("command", "resumes"),
    [
        ("pae run a --on c", "pae run a --on c"),
        ("pae run a --again tokenizer --on c", "pae run a --on c"),
        ("pae run a --again=tokenizer --again report", "pae run a"),
        ("pae run 'my recipe.yaml' x=--again", "pae run 'my recipe.yaml' x=--again"),
    ],
)
def test_a_command_resumes_without_beginning_stages_anew(command: str, resumes: str) -> None:
    assert resuming(command) == resumes


def test_the_mark_of_a_canceled_job_is_its_own(tmp_path: Path) -> None:
    jobs = RunJobs(tmp_path)
    jobs.mark_canceled("12_3")
    assert jobs.is_canceled("12_3")
    assert not jobs.is_canceled("12")
    assert not jobs.is_canceled("12_30")
