"""How Slurm's commands are asked, with fakes of them on PATH."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pae_framework.preflight.slurm_site import read_associations, read_partitions, read_settings
from pae_framework.system.slurm import SlurmUnknownError, ask_slurm, outside_allocations
from pae_framework.system.slurm_jobs import (
    end_jobs,
    job_state,
    look_at,
    queued_jobs,
    requeue,
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def fake(path: Path, name: str, script: str) -> None:
    file = path / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)


def test_the_state_of_a_job_is_that_of_scontrol(path: Path) -> None:
    fake(path, "scontrol", 'echo "JobId=12 JobName=x JobState=COMPLETING Reason=None"')
    assert job_state("12") == "COMPLETING"


def test_queued_jobs_are_ours_that_have_not_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pae_framework.system.slurm_jobs.COMPLETING_SECONDS", 0.0)
    lines = [
        "12|pae-run-encoder|RUNNING|None|node1|N/A|0",
        "13_0|pae-run-members|PENDING|Resources||N/A|0",
        "13_1|pae-run-members|COMPLETING|None|node1|N/A|0",
        "14|pae-run-report|COMPLETED|None|node1|N/A|0",
        "15|another program|RUNNING|None|node1|N/A|0",
    ]
    fake(path, "squeue", "".join(f"echo '{line}'\n" for line in lines))
    assert queued_jobs(["12", "13_0", "13_1", "14", "15"]) == {"12", "13_0", "13_1"}


QUESTIONS: dict[str, Callable[[], object]] = {
    "squeue": lambda: queued_jobs(["12"]),
    "sinfo": read_partitions,
    "sacctmgr": read_associations,
    "scontrol": lambda: job_state("12"),
}


@pytest.mark.parametrize("command", QUESTIONS)
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'error: no controller' >&2; echo 'Unable to contact' >&2; exit 1", "Unable to"),
        ("exit 3", "exit code 3"),
        ("echo 'welcome to the cluster'", "welcome to the cluster"),
        (r"printf '\377\376\n'", "cannot be read"),
        ("kill -9 $$", "signal 9"),
        ("exec /bin/sleep 60", "within 0.2 s"),
    ],
)
def test_an_answer_that_is_none_is_one_error_that_names_the_command(
    path: Path, monkeypatch: pytest.MonkeyPatch, command: str, script: str, reason: str
) -> None:
    monkeypatch.setattr("pae_framework.system.slurm.TIMEOUT_SECONDS", 0.2)
    fake(path, command, script)
    with pytest.raises(SlurmUnknownError) as caught:
        QUESTIONS[command]()
    assert command in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("command", QUESTIONS)
def test_a_command_that_is_missing_is_named(path: Path, command: str) -> None:
    with pytest.raises(SlurmUnknownError, match=f"{command} is not on PATH"):
        QUESTIONS[command]()


def test_a_file_that_is_no_program_is_named(path: Path) -> None:
    fake(path, "scancel", "")
    (path / "scancel").write_bytes(b"\x7fELF nothing")
    with pytest.raises(SlurmUnknownError, match="scancel"):
        end_jobs(["12"])


@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_garbage_does_not_mean_that_a_job_has_ended(path: Path, command: str) -> None:
    fake(path, "squeue", "true")
    fake(path, "sacct", "true")
    fake(path, command, "echo nonsense")
    answer = look_at(["12"])
    assert answer.jobs == {}
    assert "nonsense" in answer.queue_problem + answer.accounting_problem


def test_answers_do_not_depend_on_the_environment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In English, unfiltered, of the site's default cluster; also from inside a job."""
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_JWT": "token", "LC_ALL": "C"}
    dropped = {
        "SQUEUE_PARTITION": "gpu",
        "SQUEUE_FORMAT": "%i",
        "SINFO_FORMAT": "%P",
        "SACCT_FEDERATION": "1",
        "SLURM_TIME_FORMAT": "relative",
        "SLURM_JOB_ID": "7",
        "SLURM_CLUSTERS": "other",
    }
    for name, value in {**kept, **dropped, "LC_ALL": "de_DE.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    fake(path, "sinfo", "/usr/bin/env")
    lines = set(ask_slurm("sinfo").splitlines())
    assert {f"{name}={value}" for name, value in kept.items()} <= lines
    assert not {line.partition("=")[0] for line in lines} & dropped.keys()


def test_requeue_tells_scontrol_the_job(path: Path, tmp_path: Path) -> None:
    fake(path, "scontrol", f'echo "$@" > {tmp_path}/told')
    requeue("12")
    assert (tmp_path / "told").read_text() == "requeue 12\n"


def test_kill_wait_is_that_of_the_configuration(path: Path) -> None:
    fake(path, "scontrol", r"printf 'KeepAliveTime = X\nKillOnBadExit = 0\nKillWait = 30 sec\n'")
    assert read_settings()["KillWait"] == "30 sec"


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
