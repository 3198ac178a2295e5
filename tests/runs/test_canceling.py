"""``pae cancel``: which jobs are ended, and what is said."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from plan_helpers import REGISTRY
from slurm_answers import FakeSlurm, queued, submitted

from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.sweep import expand
from pae_framework.runs.directory import RunDirectory, write_description
from pae_framework.runs.jobs import COMPARISON, RunJobs
from pae_framework.runs.planned import planned_stages
from pae_framework.testing.pytest import Pae

COMMAND = "pae run tiny.yaml --on cluster"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    path = tmp_path / "run"
    loaded = load_recipe(tiny_recipe, (), REGISTRY)
    directory = RunDirectory.at(path)
    stages = planned_stages(loaded, directory.store)
    directory.write(loaded, list(stages.values()), COMMAND, starts=True)
    return path


@pytest.fixture
def chain(run: Path, slurm: FakeSlurm) -> Path:
    """The encoder has ended, the tokenizer is at step 3 of 9, two stages wait for it."""
    for stage, job, after in (
        ("encoder", "11", []),
        ("tokenizer", "12", ["11"]),
        ("latents", "13", ["12"]),
        ("generator", "14", ["13"]),
    ):
        submitted(run, stage, job, depends_on=after)
    directory = RunDirectory.at(run)
    directory.stage(directory.plan["tokenizer"]).update(
        state="running", progress={"done": 3, "total": 9}
    )
    slurm.queue(
        queued("11", "COMPLETED"),
        queued("12", "RUNNING", nodes="node1"),
        queued("13", "PENDING", "Dependency"),
        queued("14", "PENDING", "Dependency"),
    )
    return run


def ended(slurm: FakeSlurm) -> set[str]:
    """The jobs that Slurm was told to end."""
    calls = [call.split()[1:] for call in slurm.calls if call.startswith("scancel")]
    return {job for call in calls for job in call}


def test_all_jobs_that_have_not_ended(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    shown = pae("cancel", "run", "--yes").ok().out
    assert ended(slurm) == {"12", "13", "14"}
    assert "tokenizer 3/9" in shown
    assert shown.splitlines()[-1].endswith(COMMAND)
    assert [RunJobs(chain).is_canceled(job) for job in ("11", "12", "13", "14")] == [
        False,
        True,
        True,
        True,
    ]


def test_the_mark_is_there_before_the_signal(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    mark = RunJobs(chain).folder / "12.canceled"
    script = slurm.folder / "scancel"
    script.write_text(f"#!/bin/sh\ntest -e {mark} && touch {chain}/marked\n")
    pae("cancel", "run", "--yes")
    assert (chain / "marked").exists()


def test_the_job_of_one_stage_and_what_waits_for_it(
    chain: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    shown = pae("cancel", "run", "latents", "--yes").ok().out
    assert ended(slurm) == {"13"}
    assert "14" in shown
    assert "12" not in shown.split("to resume")[0].replace("3/12", "").replace("(job 12)", "")


def test_nothing_is_ended_unasked(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    assert "--yes" in pae("cancel", "run").fails(2).err
    assert ended(slurm) == set()
    assert not RunJobs(chain).is_canceled("12")


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"])
def test_nothing_to_cancel(run: Path, slurm: FakeSlurm, pae: Pae, state: str) -> None:
    submitted(run, "tokenizer", "12")
    slurm.queue(queued("12", state))
    assert "nothing to cancel" in pae("cancel", "run").ok().out
    assert ended(slurm) == set()


@pytest.mark.parametrize("state", ["PREEMPTED", "REQUEUED", "COMPLETING", "SUSPENDED"])
def test_a_job_that_goes_on_can_be_canceled(
    run: Path, slurm: FakeSlurm, pae: Pae, state: str
) -> None:
    submitted(run, "tokenizer", "12")
    slurm.queue(queued("12", state))
    pae("cancel", "run", "--yes").ok()
    assert ended(slurm) == {"12"}


def test_a_run_without_jobs(run: Path, pae: Pae) -> None:
    assert "nothing to cancel" in pae("cancel", "run").ok().out


def test_a_stage_without_a_job(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    failed = pae("cancel", "run", "evaluate", "--yes").fails(2)
    assert "evaluate" in failed.err
    assert "tokenizer" in failed.err
    assert ended(slurm) == set()


def test_a_controller_that_does_not_answer(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    slurm.answer("squeue", err="Unable to contact slurm controller\n", code=1)
    assert "Unable to contact" in pae("cancel", "run", "--yes").fails(1).err
    assert ended(slurm) == set()


def test_a_cancellation_that_fails_leaves_no_mark(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    """Else a job that goes on would not be requeued when it is preempted."""
    slurm.answer("scancel", err="scancel: error: Access/permission denied\n", code=1)
    assert "permission denied" in pae("cancel", "run", "--yes").fails(1).err
    assert not RunJobs(chain).is_canceled("12")


def test_a_damaged_list_of_jobs(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    RunJobs(chain).file.write_text("[]")
    assert "jobs.json" in pae("cancel", "run", "--yes").fails(1).err


def test_no_run(pae: Pae) -> None:
    assert "nowhere" in pae("cancel", "nowhere", "--yes").fails(2).err


# --- sweeps ---------------------------------------------------------------------------------------

SWEEP = "\nsweep: {variants: {small: {generator.width: 16}, large: {generator.width: 64}}}\n"


@pytest.fixture
def sweep(tmp_path: Path, tiny_text: str, slurm: FakeSlurm) -> Path:
    recipe, path = tmp_path / "sweep.yaml", tmp_path / "swept"
    recipe.write_text(tiny_text + SWEEP)
    loaded = load_recipe(recipe, (), REGISTRY)
    members = expand(loaded)
    info = {"name": "tiny", "command": COMMAND, "members": [x.name for x in members]}
    write_description(path, info, loaded, starts=True)
    for index, member in enumerate(members):
        directory = RunDirectory.at(path / "members" / member.name, path / "stages")
        stages = planned_stages(member.loaded, directory.store)
        directory.write(member.loaded, list(stages.values()), COMMAND, starts=True)
        if index == 0:
            folder = stages["tokenizer"].folder
            submitted(path, "tokenizer", "20", folder=folder, member=member.name)
        for name in ("generator", "sample"):
            own = {"folder": stages[name].folder, "member": member.name}
            submitted(path, name, f"21_{index}", depends_on=["20"], **own)
    submitted(path, COMPARISON, "22", depends_on=["20", "21"])
    jobs = ("20", "21_0", "21_1", "22")
    slurm.queue(*(queued(job, "PENDING", "Priority") for job in jobs))
    return path


def test_all_jobs_of_a_sweep(sweep: Path, slurm: FakeSlurm, pae: Pae) -> None:
    pae("cancel", "swept", "--yes").ok()
    assert ended(slurm) == {"20", "21_0", "21_1", "22"}


def test_a_member_without_the_stages_of_others(sweep: Path, slurm: FakeSlurm, pae: Pae) -> None:
    member = sorted((sweep / "members").iterdir())[0]
    index = {"small": "0", "large": "1"}[member.name.split("-")[0]]
    shown = pae("cancel", member, "--yes").ok().out
    assert ended(slurm) == {f"21_{index}"}
    assert "job 20" in shown
    assert RunJobs(sweep).is_canceled(f"21_{index}")


# --- the executor local ---------------------------------------------------------------------------

WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep(60)
"""


def test_the_process_of_a_local_job_is_told_to_stop(run: Path, pae: Pae) -> None:
    words = [sys.executable, "-c", WAITS, "submitit.local._local"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        submitted(run, "tokenizer", str(process.pid), executor="local", host=platform.node())
        assert "tokenizer" in pae("cancel", "run", "--yes").ok().out
        assert process.wait(timeout=30) == 7
    assert "nothing to cancel" in pae("cancel", "run").ok().out


def test_a_process_that_has_taken_the_number_of_a_local_job_is_left_alone(
    run: Path, pae: Pae
) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        submitted(run, "tokenizer", str(process.pid), executor="local", host=platform.node())
        assert "nothing to cancel" in pae("cancel", "run", "--yes").ok().out
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)


def test_a_local_job_of_another_machine_is_canceled_there(run: Path, pae: Pae) -> None:
    submitted(run, "tokenizer", "1", executor="local", host="elsewhere")
    assert "elsewhere" in pae("cancel", "run", "--yes").fails(1).err
    assert not RunJobs(run).is_canceled("1")
