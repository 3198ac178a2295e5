"""What Slurm's commands say, with fakes of them on PATH."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pae_framework.system.slurm import (
    SlurmUnknownError,
    job_state,
    outside_allocations,
    queued_jobs,
    requeue,
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, apart from a shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    return folder


def fake(path: Path, name: str, script: str) -> None:
    file = path / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)


def test_the_state_of_a_job_is_that_of_scontrol(path: Path) -> None:
    fake(path, "scontrol", 'echo "JobId=12 JobName=x JobState=COMPLETING Reason=None"')
    assert job_state("12") == "COMPLETING"


def test_queued_jobs_have_the_ids_of_tasks_of_arrays(path: Path) -> None:
    fake(path, "squeue", r"printf '12|RUNNING\n13_0|PENDING\n13_1|COMPLETING\n'")
    assert queued_jobs() == {"12": "RUNNING", "13_0": "PENDING", "13_1": "COMPLETING"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "Invalid job id"),
        ("exit 3", "exit code 3"),
        ("echo nothing", "JobState"),
    ],
)
def test_an_answer_that_is_none_says_why(path: Path, script: str, reason: str) -> None:
    fake(path, "scontrol", script)
    with pytest.raises(SlurmUnknownError, match=reason):
        job_state("12")


def test_a_command_that_is_missing_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(SlurmUnknownError, match="scontrol"):
        requeue("12")


def test_what_is_submitted_inherits_nothing_of_an_allocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inherited = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "4",
        "SLURM_MEM_PER_NODE": "100",
        "SLURMD_NODENAME": "node1",
        "SBATCH_ACCOUNT": "other",
        "SRUN_DEBUG": "3",
        "SUBMITIT_EXECUTOR": "slurm",
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "node1",
    }
    kept = {"SLURM_CONF": "/etc/slurm.conf", "MY_SLURM_NOTE": "kept", "RANKING": "kept"}
    for name, value in (inherited | kept).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with outside_allocations({"PYTHONPATH": "there"}):
        assert inherited.keys().isdisjoint(os.environ)
        assert kept.items() <= os.environ.items()
        assert os.environ["PYTHONPATH"] == "there"
    assert dict(os.environ) == before
