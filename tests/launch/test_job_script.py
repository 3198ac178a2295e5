"""The batch script of a job: what it does with signals and for processes without scontrol."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from pae_framework.launch.job import REQUEUE
from pae_framework.launch.job_script import deaf_at_start, srun_function


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture(autouse=True, params=["", "set -eu -o pipefail"])
def setup(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of shell in the profile may make the script end at errors."""
    monkeypatch.setenv("SETUP", request.param)


def script(folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    """A batch script that runs srun; its job is 12."""
    text = f"{srun_function(folder)}\n{os.environ['SETUP']}\nsrun --label true\n"
    environment = {**os.environ, "SLURM_JOB_ID": "12", **variables}
    return subprocess.Popen(["/bin/bash", "-c", text], env=environment)


def requeued(slurm: FakeSlurm) -> list[str]:
    return [line.split()[-1] for line in slurm.told if line.startswith("requeue")]


@pytest.mark.parametrize("code", [0, 3])
def test_the_code_of_srun_is_that_of_the_script(
    slurm: FakeSlurm, tmp_path: Path, code: int
) -> None:
    slurm.command("srun", f"exit {code}")
    assert script(tmp_path).wait() == code
    assert slurm.told == []


ARRAY = {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.mark.parametrize(("variables", "job"), [({}, "12"), (ARRAY, "11_3")])
def test_processes_ask_the_script_to_requeue_their_job(
    slurm: FakeSlurm, tmp_path: Path, variables: dict[str, str], job: str
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    slurm.command("srun", f'touch "${REQUEUE}"; exit 1')
    script(folder, **variables).wait()
    assert requeued(slurm) == [job]
    assert list(folder.iterdir()) == []


def test_what_an_earlier_start_asked_for_does_not_count(slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "12.requeue").touch()
    slurm.command("srun", "exit 1")
    assert script(tmp_path).wait() == 1
    assert requeued(slurm) == []


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PREEMPTED"])
def test_a_job_that_slurm_ends_is_not_requeued_by_its_script(
    slurm: FakeSlurm, tmp_path: Path, state: str
) -> None:
    slurm.state(state)
    slurm.command("srun", f'touch "${REQUEUE}"; exit 1')
    script(tmp_path).wait()
    assert requeued(slurm) == []


def test_without_scontrol_the_processes_cannot_ask(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm.folder / "bin" / "scontrol").unlink()
    monkeypatch.setenv("PATH", str(slurm.folder / "bin"))
    slurm.command("srun", f'echo "[${REQUEUE}]" > {tmp_path}/asked; exit 1')
    assert script(tmp_path).wait() == 1
    assert (tmp_path / "asked").read_text() == "[]\n"


TOLD = """\
trap 'touch {folder}/told; exit {code}' USR2
touch {folder}/runs
while :; do sleep 0.02; done
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
@pytest.mark.parametrize(("code", "jobs"), [(1, ["12"]), (0, [])])
def test_a_signal_to_the_script_reaches_the_processes(
    slurm: FakeSlurm, tmp_path: Path, number: signal.Signals, code: int, jobs: list[str]
) -> None:
    slurm.command("srun", TOLD.format(folder=tmp_path, code=code))
    process = script(tmp_path)
    while not (tmp_path / "runs").exists():
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert (tmp_path / "told").exists()
    assert requeued(slurm) == jobs


def test_a_signal_during_the_setup_requeues_the_job(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETUP", f"touch {tmp_path}/begun; sleep 0.5")
    slurm.command("srun", f"touch {tmp_path}/ran")
    process = script(tmp_path)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 1
    assert requeued(slurm) == ["12"]
    assert not (tmp_path / "ran").exists()


def test_signals_do_not_end_a_process_that_does_not_heed_them_yet() -> None:
    code = "import os, signal; [os.kill(os.getpid(), n) for n in (1, 10, 12, 15)]; print('here')"
    command = f"{deaf_at_start(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "here\n"
