"""Jobs on a real Slurm that are interrupted resume, and end as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
from submitted_runs import START, Left, Site, results, write_slow_training

from pae_framework.testing.pytest import run_process

pytestmark = pytest.mark.slurm

Undisturbed = Callable[[int], Mapping[str, Left]]
LOCAL_SLURM = Path(__file__).parents[2] / "scripts" / "local-slurm"


@pytest.fixture(autouse=True)
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDS_PER_IMAGE", "0.05")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What the encoder's training leaves in a run of so many processes without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_slow_training(folder)

    @cache
    def of(processes: int) -> Mapping[str, Left]:
        name = str(processes)
        words = ("run", "slow.yaml", "--run-dir", name, "--processes", name)
        path = os.pathsep.join((os.environ.get("PYTHONPATH", ""), str(folder / "plugin")))
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("PYTHONPATH", path)
            monkeypatch.delenv("SECONDS_PER_IMAGE")
            run_process("-m", "pae_framework", *words, cwd=folder, timeout=300).ok()
        return results(folder / name)

    return of


INTERRUPTIONS = {
    "the batch script": ("scancel", "--batch", "--signal=TERM"),
    "all processes, and srun, which ends them": ("scancel", "--full", "--signal=TERM"),
    "requeued by hand": ("scontrol", "requeue"),
}


def test_two_nodes_lose_nothing_whoever_is_told_to_stop(
    site: Site, undisturbed: Undisturbed
) -> None:
    site.run("slow.yaml", "--on", "two")
    job = site.jobs()["encoder"]
    site.trains(job)
    os.kill(site.processes(job)["1"], signal.SIGTERM)
    for start, command in enumerate(INTERRUPTIONS.values(), start=2):
        site.slurm.go_on(job)
        site.trains(job, start)
        site.slurm.output(*command, job)
    site.slurm.go_on(job)
    assert site.ends(job) == "COMPLETED", site.log(job)
    assert results(site.folder / "run") == undisturbed(2)
    assert site.log(job).count(START) == len(INTERRUPTIONS) + 2  # nothing was truncated
    assert site.shown("encoder")["restarts"] == len(INTERRUPTIONS) + 1


def test_a_preempted_job_saves_once_although_it_is_told_again(
    site: Site, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS_PER_SAVE", "4")  # the partition has a grace of 10 s
    site.run("slow.yaml", "--on", "one")
    job = site.jobs()["encoder"]
    site.trains(job)
    whole = ("-N2", "--ntasks-per-node=4", "--partition=high")
    high = site.slurm.submit(site.folder, "sleep 300", *whole)
    site.wait((site.plugin / "saving").exists, job)
    for name in ("TERM", "USR2"):
        site.slurm.output("scancel", f"--signal={name}", job)
    site.slurm.wait_for(high, "RUNNING")
    shown = site.shown("encoder")
    assert (shown["state"], shown["reason"], shown["restarts"]) == ("PENDING", "BeginTime", 1)
    saved = site.record("encoder")
    assert saved["save_seconds"] >= 4
    assert saved["progress"]["done"] >= 2

    site.slurm.output("scancel", high)
    monkeypatch.setenv("SECONDS_PER_SAVE", "0")
    site.slurm.go_on(job)
    assert site.ends(job) == "COMPLETED", site.log(job)
    assert results(site.folder / "run") == undisturbed(1)
    assert f"stopped at step {saved['progress']['done']} " in site.log(job)


def test_a_job_without_scontrol_is_requeued_by_its_script(
    site: Site, undisturbed: Undisturbed
) -> None:
    site.run("slow.yaml", "--on", "outside")  # as in a container
    job = site.jobs()["encoder"]
    site.trains(job)
    site.slurm.output("scancel", "--signal=USR1", job)
    site.slurm.go_on(job)
    assert site.ends(job) == "COMPLETED", site.log(job)
    assert results(site.folder / "run") == undisturbed(1)
    assert "scontrol is not on PATH" in site.log(job)
    assert f"job {job} is requeued by its script" in site.log(job)


def test_a_job_that_starts_in_vain_fails_and_what_changed_meanwhile_is_said(site: Site) -> None:
    site.run("slow.yaml", "--on", "hasty")
    jobs = site.jobs()
    job = jobs["encoder"]
    for times in (1, 2):
        site.starts(job, times)
        site.slurm.output("scontrol", "requeue", job)
        for file in (site.folder / "slow.yaml", site.plugin / "slow_digits.py"):
            file.write_text(f"{file.read_text()}# edited\n")
        site.slurm.go_on(job)
    assert site.ends(job) == "FAILED", site.log(job)
    site.wait(lambda: site.slurm.state(jobs["report"]) == "CANCELLED", jobs["report"])
    log = site.log(job)
    assert "Traceback" not in log
    for text in (
        f"{site.folder / 'slow.yaml'} was edited",
        "the code of slow_digits was edited",
        f"tokenizer (job {jobs['tokenizer']}), report (job {jobs['report']})",
        f"job {job} started this stage 2 times without a new checkpoint",
    ):
        assert text in log
    assert "did not succeed" in site.shown("tokenizer")["text"]


@pytest.mark.slow
def test_the_time_limit_is_reached_again_and_again(
    site: Site, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS_PER_IMAGE", "0.6")  # 115 s; the limit is 120 s, signaled before 60
    site.run("slow.yaml", "--on", "short")
    job = site.jobs()["encoder"]
    site.slurm.wait_for(job, "RUNNING")
    limits, going = 0, {"RUNNING", "COMPLETING", "REQUEUED"}
    while True:
        site.wait(lambda: site.slurm.state(job) not in going, job)
        if site.slurm.state(job) != "PENDING":
            break
        limits += 1
        site.slurm.go_on(job)
        site.slurm.wait_for(job, "RUNNING")
    assert site.slurm.state(job) == "COMPLETED", site.log(job)
    assert limits >= 2
    assert results(site.folder / "run") == undisturbed(1)


@pytest.mark.slow
def test_a_node_fails(site: Site, undisturbed: Undisturbed) -> None:
    site.run("slow.yaml", "--on", "two")
    job = site.jobs()["encoder"]
    site.trains(job)
    rank = site.processes(job)["1"]
    keeper = re.search(r"PPid:\s+(\d+)", Path(f"/proc/{rank}/status").read_text())
    assert keeper
    for pid in (*daemons_of("node2"), int(keeper[1]), rank):
        os.kill(pid, signal.SIGKILL)
    site.slurm.wait_for(job, "PENDING")
    folder = Path(os.environ["SLURM_CONF"]).parent
    subprocess.run([LOCAL_SLURM, "up", "--dir", folder], check=True)
    nodes = ("sinfo", "-Nh", "--partition=debug", "--format=%T")
    site.wait(lambda: site.slurm.output(*nodes).split() == ["idle", "idle"], job)
    site.slurm.go_on(job)
    assert site.ends(job) == "COMPLETED", site.log(job)
    assert results(site.folder / "run") == undisturbed(2)
    assert "if its node failed, Slurm requeues" in site.log(job)


def daemons_of(node: str) -> list[int]:
    """The processes of a node's slurmd."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0")
        if words[0].endswith(b"slurmd") and node.encode() in words:
            found.append(int(path.parent.name))
    return found
