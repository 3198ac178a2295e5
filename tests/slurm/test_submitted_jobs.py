"""Runs that `pae run --on` submits to a real Slurm, and what interrupts them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from safetensors.torch import load_file
from torch.testing import assert_close

from pae_framework.runs.jobs import COMPARISON, RunJobs
from pae_framework.testing.pytest import Result, run_process

pytestmark = pytest.mark.slurm

CHAIN = Path(__file__).parents[1] / "guard" / "chain_a.yaml"
PROFILES = """\
one: {executor: slurm, time: 20, memory: 1GB, array_limit: 1, signal_before: 60}
two: {extends: one, nodes: 2, tasks_per_node: 2, srun_args: [--overcommit]}
"""
LONG = "extractor.train={steps: 3000, batch_size: 16, checkpoint_every: 100000, log_every: 20}"
"""A training that lasts long enough to be interrupted; it saves only when it is told to stop."""
SECONDS = 300


class Site:
    """Runs that are submitted from one folder."""

    def __init__(self, slurm: LocalSlurm, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder

    def run(self, *words: str | Path, run: str = "run") -> Result:
        command = ("-m", "pae_framework", "run", *words, "--run-dir", run)
        return run_process(*command, cwd=self.folder, timeout=SECONDS).ok()

    def jobs(self, run: str = "run") -> dict[str, str]:
        """The last job of each stage."""
        return {stage.stage: stage.id for stage in RunJobs(self.folder / run).submitted}

    def log(self, job: str, run: str = "run") -> str:
        file = RunJobs(self.folder / run).log(job)
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def wait(self, condition: Callable[[], bool], job: str, run: str = "run") -> None:
        """Wait for a condition, several times as long as for an answer of Slurm."""
        for _ in range(SECONDS // 60):
            try:
                self.slurm.until(condition)
                return
            except AssertionError:
                continue
        pytest.fail(f"job {job} is {self.slurm.state(job)}: {self.log(job, run)}")

    def ends(self, job: str, run: str = "run") -> str:
        """The state of a job when it has ended."""
        going = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}
        self.wait(lambda: self.slurm.state(job) not in going, job, run)
        return self.slurm.state(job)

    def trains(self, job: str, times: int = 1, run: str = "run") -> None:
        """Wait until a job has shown progress of its training after so many starts."""
        start = "Starting with JobEnvironment"
        self.wait(
            lambda: (
                (log := self.log(job, run)).count(start) == times
                and "loss" in log.rpartition(start)[2]
            ),
            job,
            run,
        )

    def goes_on(self, job: str) -> None:
        """Start a requeued job at once."""
        self.slurm.wait_for(job, "PENDING")
        self.slurm.output("scontrol", "update", f"JobId={job}", "StartTime=now")

    def processes(self, job: str) -> dict[str, int]:
        """The processes of a job by their rank."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            known = dict(x.decode(errors="replace").split("=", 1) for x in variables if b"=" in x)
            is_task = b"submitit.core._submit" in command and b"srun" not in command
            if is_task and known.get("SLURM_JOB_ID") == job and "SLURM_PROCID" in known:
                found[known["SLURM_PROCID"]] = int(folder.name)
        return found


@pytest.fixture
def site(slurm: LocalSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    file = tmp_path / "config" / "pae_framework" / "profiles.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(PROFILES, encoding="utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    site = Site(slurm, tmp_path)
    yield site
    for run in tmp_path.glob("*/jobs.json"):
        for job in {stage.job for stage in RunJobs(run.parent).submitted}:
            subprocess.run(["scancel", job], capture_output=True, check=False)


def weights(run: Path, stage: str) -> dict[str, object]:
    return {
        f"{file.name}/{name}": tensor
        for file in (run / stage).glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def test_a_chain_of_jobs_gives_the_results_of_one_process(site: Site) -> None:
    site.run(CHAIN, run="alone")
    site.run(CHAIN, "--on", "one")
    jobs = site.jobs()
    assert site.ends(jobs["report"]) == "COMPLETED"
    for stage in ("extractor", "tokenizer", "generator"):
        alone = weights(site.folder / "alone", stage)
        assert_close(weights(site.folder / "run", stage), alone, rtol=0, atol=0)
    assert (site.folder / "run" / "report.html").exists()
    assert "cached" not in site.run(CHAIN, "--on", "one").out
    assert site.jobs() == jobs


SIGNALS = {
    "the batch script": ("--batch", "--signal=TERM"),
    "all processes": ("--full", "--signal=USR2"),
    "all processes, and srun, which ends them": ("--full", "--signal=TERM"),
    "the steps": ("--signal=USR1",),
}


def test_four_ranks_on_two_nodes_are_interrupted_in_every_way_and_lose_nothing(site: Site) -> None:
    site.run(CHAIN, LONG, "--processes", "4", run="alone")
    site.run(CHAIN, LONG, "--on", "two")
    job, times = site.jobs()["extractor"], 1
    for options in SIGNALS.values():
        site.trains(job, times)
        site.slurm.output("scancel", *options, job)
        site.goes_on(job)
        times += 1
    site.trains(job, times)
    os.kill(site.processes(job)["3"], 15)
    site.goes_on(job)
    assert site.ends(job) == "COMPLETED"

    alone = weights(site.folder / "alone", "extractor")
    assert_close(weights(site.folder / "run", "extractor"), alone, rtol=0, atol=1e-4)
    log = site.log(job)
    assert log.count("Starting with JobEnvironment") == len(SIGNALS) + 2  # nothing was truncated
    (lines,) = (site.folder / "run" / "extractor").glob("metrics.jsonl")
    steps = [json.loads(line)["step"] for line in lines.read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_canceled_jobs_stay_ended_and_a_failed_stage_cancels_those_that_wait(site: Site) -> None:
    site.run(CHAIN, LONG, "--on", "one")
    jobs = site.jobs()
    site.trains(jobs["extractor"])
    site.slurm.output("scancel", jobs["extractor"])
    assert site.ends(jobs["extractor"]) == "CANCELLED"
    site.wait(lambda: site.slurm.state(jobs["report"]) == "CANCELLED", jobs["report"])
    state = json.loads((site.folder / "run/extractor/stage.json").read_bytes())
    assert state["state"] == "stopped"
    assert state["progress"]["done"] > 0


def test_code_and_recipe_edited_while_the_job_waits_are_noticed(site: Site) -> None:
    shutil.copy(CHAIN, site.folder / "mine.yaml")
    site.run("mine.yaml", "--on", "one")
    job = site.jobs()["refine"]
    recipe = site.folder / "mine.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("steps: 6", "steps: 7"))
    assert site.ends(job) == "COMPLETED"
    assert f"{recipe} was edited" in site.log(job)


def test_a_sweep_is_an_array_with_a_cap_and_a_failing_member_fails_alone(site: Site) -> None:
    sweep = "sweep={seeds: [0], variants: {a: {}, b: {generator.train.steps: 7}}}"
    site.run(CHAIN, sweep, "--on", "one")
    entries = RunJobs(site.folder / "run").submitted
    tasks = {stage.member: stage.id for stage in entries if stage.array_index is not None}
    (comparison,) = [stage.id for stage in entries if stage.stage == COMPARISON]
    (folder,) = [x.folder for x in entries if (x.member, x.stage) == ("b-seed0", "generator")]
    obstacle = site.folder / "run" / "stages" / folder
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("in the way", encoding="utf-8")
    assert site.ends(comparison) == "COMPLETED"
    assert site.slurm.state(tasks["a-seed0"]) == "COMPLETED"
    assert site.slurm.state(tasks["b-seed0"]) == "FAILED"
    results = json.loads((site.folder / "run" / "results.json").read_bytes())
    assert [member["member"] for member in results] == ["a-seed0"]
