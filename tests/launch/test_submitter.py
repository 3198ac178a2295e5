"""What `pae run --on` hands to Slurm, with fakes of its commands on PATH."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, profiles

from pae_framework.errors import RunError, UsageError, WriteError
from pae_framework.launch.executors import Executor
from pae_framework.launch.start import RunOptions, profile_of, run_recipe
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.jobs import COMPARISON, RunJobs
from pae_framework.runs.record import StageRecord
from pae_framework.system import slurm_jobs
from pae_framework.system.console import PlainConsole

CHAIN = {
    "extractor": [],
    "encoder": [],
    "refine": ["encoder"],
    "tokenizer": ["refine"],
    "latents": ["tokenizer"],
    "generator": ["latents"],
    "sample": ["generator"],
    "evaluate": ["extractor", "sample"],
    "report": ["evaluate"],
}
"""The stages of the recipe, and those whose jobs each waits for."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    keys = {"gpus_per_node": 2, "stages": {"generator": {"nodes": 3}}, "array_limit": 2}
    profiles(tmp_path, monkeypatch, **keys, flags={"requeue-delay": 3}, setup=["module load x"])
    monkeypatch.chdir(tmp_path)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def submit(slurm: FakeSlurm, tiny_recipe: Path) -> Callable[..., RunDirectory]:
    def submit(*overrides: str, run: str = "run", **options: object) -> RunDirectory:
        loaded = load_recipe(tiny_recipe, overrides)
        chosen = RunOptions(run_dir=Path(run), on="cluster", command="pae run ...", **options)  # type: ignore[arg-type]
        return run_recipe(loaded, chosen, PlainConsole())

    return submit


def by_stage(run: RunDirectory) -> dict[str, str]:
    return {stage.stage: stage.id for stage in RunJobs(run.path).submitted}


def finish(run: RunDirectory, *names: str) -> None:
    """Make stages look done."""
    for name in names:
        folder = run.stage(run.plan[name]).path
        folder.mkdir(parents=True, exist_ok=True)
        StageRecord(folder).update(state="done", results={})


def test_each_stage_is_a_job_that_waits_for_those_it_reads(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    run = submit()
    ids = by_stage(run)
    assert list(ids) == list(CHAIN)
    for stage, waits_for in CHAIN.items():
        options = slurm.jobs[int(ids[stage])]
        assert options["job-name"] == f"pae-run-{stage}"
        expected = "afterok:" + ":".join(ids[name] for name in waits_for) if waits_for else None
        assert options.get("dependency") == expected
        assert options.get("kill-on-invalid-dep") == ("yes" if waits_for else None)
        assert options["nodes"] == ("3" if stage == "generator" else "1")
        assert {"requeue", "requeue-delay"} <= options.keys()
        assert options["open-mode"] == "append"
        assert options["output"] == str(run.path.absolute() / "jobs" / "%j_0_log.out")


def test_a_job_runs_in_the_environment_of_its_submitter(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(sys.executable).parent)  # as for the script `pae`
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SBATCH_PARTITION", "SUBMITIT_EXECUTOR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.syspath_prepend("/somewhere/else")
    submit()
    script, seen = slurm.script(100), slurm.environment(100)
    assert not [name for name in seen if name.startswith(("SLURM_", "SBATCH_", "SUBMITIT_"))]
    assert f"{sys.executable} -P -u -m submitit" in script
    assert "--kill-on-bad-exit=1" in script
    lines = script.splitlines()
    (path,) = [line for line in lines if line.startswith("export PYTHONPATH=")]
    assert "/somewhere/else" in path
    assert sysconfig.get_path("stdlib") not in path  # `module load x` may be a program in Python
    assert str(Path(sys.executable).parent) not in path.split("=")[1].split(os.pathsep)
    assert lines.index(path) < lines.index("module load x")
    # Another Python, which the profile may set up, must not find the modules of this one.
    exported = path.removeprefix("export PYTHONPATH=").split(":")
    assert not [x for x in exported if Path(x, "os.py").exists() or Path(x, "torch").exists()]


def test_stages_that_are_done_are_not_submitted(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    run = submit()
    finish(run, *list(CHAIN)[:7])
    submit()
    again = RunJobs(run.path).submitted[len(CHAIN) :]
    assert [stage.stage for stage in again] == ["evaluate", "report"]
    assert [stage.depends_on for stage in again] == [[], [again[0].id]]

    finish(run, "evaluate", "report")
    submit()
    assert len(slurm.jobs) == len(CHAIN) + 2


def test_stages_whose_jobs_have_not_ended_are_not_submitted_twice(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    run = submit()
    ids = by_stage(run)
    slurm.queue({ids[name]: "PENDING" for name in ("encoder", "refine", "tokenizer")})
    capsys.readouterr()
    submit()
    again = {stage.stage: stage for stage in RunJobs(run.path).submitted[len(CHAIN) :]}
    assert list(again) == [name for name in CHAIN if name not in ("encoder", "refine", "tokenizer")]
    assert again["latents"].depends_on == [ids["tokenizer"]]
    assert f"job {ids['encoder']} already" in capsys.readouterr().out


def test_jobs_that_are_ending_are_waited_for(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then is it known whether they are requeued; one that is not would end what waits."""
    run = submit()
    encoder = by_stage(run)["encoder"]
    slurm.queue({encoder: "COMPLETING"})
    monkeypatch.setattr(slurm_jobs.time, "sleep", lambda seconds: slurm.queue({}))
    submit()
    again = [stage.stage for stage in RunJobs(run.path).submitted[len(CHAIN) :]]
    assert again == list(CHAIN)


def test_jobs_of_a_recipe_that_was_changed_are_named(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = by_stage(submit())
    slurm.queue({ids[name]: "PENDING" for name in ("encoder", "generator")})
    capsys.readouterr()
    submit("generator.train.steps=7")
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "before it changed" in x]
    assert line.startswith("generator")
    assert f"scancel {ids['generator']}" in line


def test_a_job_that_cannot_be_recorded_is_ended(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(jobs: RunJobs, stages: object) -> None:
        raise WriteError("no space")

    slurm.command("scancel", f'echo "$@" > {slurm.folder}/ended')
    monkeypatch.setattr(RunJobs, "add", full)
    with pytest.raises(WriteError):
        submit()
    assert (slurm.folder / "ended").read_text(encoding="utf-8").split() == ["100"]
    assert len(slurm.jobs) == 1


def test_a_job_that_can_neither_be_recorded_nor_ended_is_named(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(jobs: RunJobs, stages: object) -> None:
        raise WriteError("no space")

    slurm.command("scancel", "echo down >&2; exit 1")
    monkeypatch.setattr(RunJobs, "add", full)
    with pytest.raises(RunError, match=r"no space.*down.*scancel 100"):
        submit()


def test_canceled_jobs_that_are_ending_do_not_count_as_queued(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    run = submit()
    ids = by_stage(run)
    for job in ids.values():
        RunJobs(run.path).mark_canceled(job)
    slurm.queue(dict.fromkeys(ids.values(), "COMPLETING"))
    submit()
    assert len(slurm.jobs) == 2 * len(CHAIN)


def test_a_job_that_is_not_accepted_leaves_those_before_it_on_record(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    slurm.refuse(102)
    with pytest.raises(RunError, match=r"refine.*invalid partition"):
        submit()
    jobs = RunJobs(Path("run"))
    assert [stage.id for stage in jobs.submitted] == ["100", "101"]
    slurm.queue({"100": "RUNNING", "101": "RUNNING"})
    submit()
    assert by_stage(RunDirectory.at(Path("run")))["encoder"] == "101"


def test_without_slurm_nothing_is_submitted(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "srun"):
        (slurm.folder / "bin" / name).unlink()
    monkeypatch.setenv("PATH", str(slurm.folder / "bin"))
    with pytest.raises(UsageError, match="cluster"):
        submit()


def test_a_controller_that_does_not_answer_leads_to_no_second_job(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    submit()
    slurm.command("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(RunError, match="Unable to contact"):
        submit()
    assert len(slurm.jobs) == len(CHAIN)


def test_a_short_grace_is_warned_about(
    submit: Callable[..., RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = submit()
    record = run.stage(run.plan["generator"])
    record.path.mkdir(parents=True)
    record.update(state="stopped", save_seconds=500.0)
    capsys.readouterr()
    submit()
    (warning,) = [x for x in capsys.readouterr().out.splitlines() if "cluster.signal_before" in x]
    for part in ("profiles.yaml:1:", "generator", "500 s", "120 s"):
        assert part in warning


def test_a_run_that_was_submitted_elsewhere_can_go_on_without_slurm(
    submit: Callable[..., RunDirectory],
    slurm: FakeSlurm,
    tiny_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = submit()
    finish(run, *CHAIN)
    record = run.stage(run.plan["report"])
    record.update(state="stopped")
    monkeypatch.setattr(Executor, "_sent_local", lambda executor, job, works: ["1"])
    (slurm.folder / "bin" / "squeue").unlink()
    monkeypatch.setenv("PATH", str(slurm.folder / "bin"))
    run_recipe(load_recipe(tiny_recipe), RunOptions(run_dir=run.path, on="local"), PlainConsole())
    last = RunJobs(run.path).submitted[-1]
    assert (last.stage, last.executor) == ("report", "local")


def test_jobs_behind_one_that_was_canceled_are_submitted_again(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    """Slurm ends them, since what they wait for does not succeed."""
    slurm.command("scancel", f'echo "$@" > {slurm.folder}/ended')
    run = submit()
    ids = by_stage(run)
    RunJobs(run.path).mark_canceled(ids["encoder"])
    slurm.queue(dict.fromkeys(ids.values(), "PENDING"))
    submit()
    again = RunJobs(run.path).submitted[len(CHAIN) :]
    behind = [name for name in CHAIN if name != "extractor"]  # which waits for nothing
    assert [stage.stage for stage in again] == behind
    ended = (slurm.folder / "ended").read_text(encoding="utf-8").split()
    assert set(ended) == {ids[name] for name in behind if name != "encoder"}
    waits = {stage.stage: stage.depends_on for stage in again}
    present = by_stage(run) | {stage.stage: stage.id for stage in again}
    assert waits["evaluate"] == [present["extractor"], present["sample"]]


def test_a_smoke_run_of_jobs_needs_a_folder(submit: Callable[..., RunDirectory]) -> None:
    with pytest.raises(UsageError, match="--run-dir"):
        profile_of(load_recipe("quickstart"), RunOptions(on="cluster", smoke=True))


def test_a_run_here_names_its_jobs_in_the_queue(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, tiny_recipe: Path
) -> None:
    run = submit()
    finish(run, *CHAIN)
    report = by_stage(run)["report"]
    slurm.queue({report: "PENDING"})
    said: list[str] = []
    run_recipe(load_recipe(tiny_recipe), RunOptions(run_dir=run.path), PlainConsole(), said.append)
    (warning,) = [line for line in said if report in line]
    assert "pae cancel" in warning


def test_a_preempted_job_that_is_not_requeued_has_ended(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_jobs, "COMPLETING_SECONDS", 0)
    run = submit()
    slurm.queue({by_stage(run)["encoder"]: "PREEMPTED"})
    submit()
    assert RunJobs(run.path).submitted[len(CHAIN) + 1].stage == "encoder"


def test_a_stage_in_a_job_of_another_executor_is_no_dependency(
    submit: Callable[..., RunDirectory], tiny_recipe: Path, slurm: FakeSlurm
) -> None:
    run = submit()
    ids = by_stage(run)
    slurm.queue({ids["encoder"]: "RUNNING"})
    with pytest.raises(RunError, match=rf"encoder.*{ids['encoder']}.*slurm.*pae cancel"):
        run_recipe(
            load_recipe(tiny_recipe), RunOptions(run_dir=run.path, on="local"), PlainConsole()
        )


SWEEP = "sweep={seeds: [0, 1], variants: {a: {}, b: {generator.train.steps: 7}}}"


def test_of_a_sweep_shared_stages_come_first_then_an_array_then_the_report(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    run = submit(SWEEP)
    entries = RunJobs(run.path).submitted
    shared = [stage for stage in entries if stage.array_index is None and stage.fingerprint]
    # The encoders have seeds of their own, the members a and b of a seed share up to the latents.
    tasks = {stage.member: stage.id for stage in entries if stage.array_index is not None}
    assert len({stage.folder for stage in shared}) == len(shared)
    (array,) = {stage.job for stage in entries if stage.array_index is not None}
    assert sorted(tasks.values()) == [f"{array}_{index}" for index in range(4)]
    options = slurm.jobs[int(array)]
    assert options["array"] == "0-3%2"
    # If one of them fails, only the members that need it do.
    assert set(options["dependency"].removeprefix("afterany:").split(":")) == {
        stage.id for stage in shared
    }
    assert options["nodes"] == "3"  # the generator's, the largest of a member
    own = [stage.stage for stage in entries if stage.id == tasks["a-seed0"]]
    assert own == ["generator", "sample", "evaluate", "report"]
    (comparison,) = [stage for stage in entries if stage.stage == COMPARISON]
    assert slurm.jobs[int(comparison.id)]["dependency"].startswith("afterany:")
    assert array in slurm.jobs[int(comparison.id)]["dependency"]


def test_other_members_of_a_sweep_are_not_outdated(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    run = submit(SWEEP, only="a*")
    slurm.queue({stage.id: "PENDING" for stage in RunJobs(run.path).submitted})
    capsys.readouterr()
    submit(SWEEP, only="b*")
    assert "scancel" not in capsys.readouterr().out


def test_members_whose_shared_stage_failed_are_submitted_again(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    slurm.command("scancel", f'echo "$@" > {slurm.folder}/ended')
    run = submit(SWEEP)
    entries = RunJobs(run.path).submitted
    failed = next(stage for stage in entries if stage.stage == "tokenizer")
    slurm.queue({stage.id: "PENDING" for stage in entries if stage.id != failed.id})
    submit(SWEEP)
    again = RunJobs(run.path).submitted[len(entries) :]
    assert again[0].folder == failed.folder
    (latents,) = [stage for stage in again if stage.stage == "latents"]
    assert latents.depends_on == [again[0].id]
    seed = (failed.member or "").partition("-")[2]
    members = {stage.member for stage in again if stage.stage == "generator"}
    assert members == {f"{variant}-{seed}" for variant in "ab"}


def test_members_whose_tasks_have_not_ended_are_not_submitted_twice(
    submit: Callable[..., RunDirectory], slurm: FakeSlurm
) -> None:
    run = submit(SWEEP)
    first = RunJobs(run.path).submitted
    slurm.queue({stage.id: "PENDING" for stage in first})
    submit(SWEEP)
    again = RunJobs(run.path).submitted[len(first) :]
    assert again == []
