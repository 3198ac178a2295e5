"""Runs and sweeps that `pae run --on` submits to a real Slurm."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from submitted_runs import Site, results

from pae_framework.runs.jobs import COMPARISON, RunJobs

sys.path.append(str(Path(__file__).parents[1] / "launch"))

from equality import assert_equal, write_recipe

pytestmark = pytest.mark.slurm

CHAIN = Path(__file__).parents[1] / "guard" / "chain_a.yaml"
TRAINED = ("extractor", "encoder", "refine", "tokenizer", "generator")


def weights(run: Path) -> dict[str, bytes]:
    """All finished weights of a run."""
    files = [file for stage in TRAINED for file in (run / stage).glob("*.safetensors")]
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}


def test_a_chain_of_jobs_gives_the_results_of_one_process(site: Site) -> None:
    site.run(CHAIN, run="alone")
    site.run(CHAIN, "--on", "one")
    jobs = site.jobs()
    assert site.ends(jobs["report"]) == "COMPLETED"
    assert weights(site.folder / "run") == weights(site.folder / "alone")
    assert len(weights(site.folder / "run")) >= len(TRAINED)
    assert (site.folder / "run" / "report.html").exists()
    assert "no job" in site.run(CHAIN, "--on", "one").err
    assert site.jobs() == jobs


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_jobs_of_four_processes_on_two_nodes_give_the_results_of_one_process(site: Site) -> None:
    recipe = write_recipe(site.folder)
    site.run(recipe, run="one")
    site.run(recipe, "--on", "four", run="four")
    for job in site.jobs("four").values():
        assert site.ends(job, "four") == "COMPLETED"
    assert_equal(site.folder / "one", site.folder / "four", slack=5)


def test_canceled_jobs_save_and_stay_ended_and_cancel_those_that_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS_PER_IMAGE", "0.05")
    site.run("slow.yaml", "--on", "one")
    jobs = site.jobs()
    site.trains(jobs["encoder"])
    site.pae("cancel", "run", "encoder", "--yes").ok()
    assert site.ends(jobs["encoder"]) == "CANCELLED"
    site.wait(lambda: site.slurm.state(jobs["report"]) == "CANCELLED", jobs["report"])
    site.wait(lambda: site.record("encoder")["state"] == "stopped", jobs["encoder"])
    done = site.record("encoder")["progress"]["done"]
    assert done >= 2
    assert f"job {jobs['encoder']} was canceled" in site.log(jobs["encoder"])
    assert site.shown("encoder")["canceled"]

    site.run("slow.yaml", "--on", "one")
    again = site.jobs()
    assert again.keys() == jobs.keys()
    assert not set(again.values()) & set(jobs.values())
    assert site.ends(again["encoder"]) == "COMPLETED"
    assert "resumes" in site.log(again["encoder"])


def test_a_sweep_is_an_array_with_a_cap_and_a_failing_member_fails_alone(site: Site) -> None:
    sweep = "sweep={seeds: [0], variants: {a: {}, b: {tokenizer.train.steps: 3}}}"
    site.run("slow.yaml", sweep, "--on", "one")
    entries = RunJobs(site.folder / "run").submitted
    tasks = {stage.member: stage.id for stage in entries if stage.array_index is not None}
    shared = {stage.stage: stage.id for stage in entries if stage.array_index is None}
    assert shared.keys() == {"encoder", COMPARISON}
    (folder,) = [x.folder for x in entries if (x.member, x.stage) == ("b-seed0", "tokenizer")]
    obstacle = site.folder / "run" / "stages" / folder
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("in the way", encoding="utf-8")

    def jobs() -> dict[str, dict[str, Any]]:
        """What the status of the failing member says of each stage's job."""
        members = site.pae("status", "run", "--json").ok().json["runs"]
        return {row["stage"]: row["job"] for row in members["b-seed0"]}

    assert jobs()["encoder"]["id"] == shared["encoder"]
    assert jobs()["tokenizer"]["id"] == tasks["b-seed0"]
    # Slurm finds the reason when it next schedules.
    site.wait(lambda: jobs()["tokenizer"]["reason"] == "Dependency", tasks["b-seed0"])

    assert site.ends(shared[COMPARISON]) == "COMPLETED"
    assert site.slurm.state(tasks["a-seed0"]) == "COMPLETED"
    assert site.slurm.state(tasks["b-seed0"]) == "FAILED"
    assert json.loads((site.folder / "run" / "results.json").read_bytes()) == []
    shown = site.pae("status", "run").ok().out
    assert "1 done" in shown


def test_two_runs_from_inside_allocations_share_the_nodes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS_PER_IMAGE", "0.2")
    command = (sys.executable, "-m", "pae_framework", "run", "slow.yaml", "--on", "two")
    jobs = {}
    for program in ("salloc", "srun"):
        site.slurm.output(program, "-N1", *command, "--run-dir", program, cwd=site.folder)
        jobs[program] = site.jobs(program)["encoder"]
    for run, job in jobs.items():
        site.trains(job, run=run)
    assert {site.slurm.state(job) for job in jobs.values()} == {"RUNNING"}
    assert {site.slurm.field(job, "NumNodes") for job in jobs.values()} == {"2"}
    for run, job in jobs.items():
        assert site.ends(job, run) == "COMPLETED"
    assert results(site.folder / "salloc") == results(site.folder / "srun")
