"""How jobs stand: Slurm's answers beside the records of a run. Slurm itself is not needed."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import pytest
from filelock import FileLock
from plan_helpers import REGISTRY
from slurm_answers import FakeSlurm, accounted, queued, submitted

from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.sweep import expand
from pae_framework.runs.directory import RunDirectory, write_description
from pae_framework.runs.job_status import JobStatus, JobsView
from pae_framework.runs.jobs import COMPARISON, RunJobs, Start
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.runs.stage_status import StageStatus
from pae_framework.runs.status import Comparison, run_status
from pae_framework.system import slurm_jobs
from pae_framework.testing.pytest import Pae

TODAY = time.strftime("%Y-%m-%d")


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    """A run of the tiny recipe in which no stage has begun."""
    path = tmp_path / "run"
    loaded = load_recipe(tiny_recipe, (), REGISTRY)
    directory = RunDirectory.at(path)
    stages = planned_stages(loaded, directory.store)
    directory.write(loaded, list(stages.values()), "pae run tiny.yaml --on cluster", starts=True)
    return path


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def record(run: Path, stage: str) -> StageRecord:
    directory = RunDirectory.at(run)
    return directory.stage(directory.plan[stage])


def job(run: Path, stage: str = "tokenizer") -> JobStatus:
    entry = JobsView(run).last(record(run, stage).path.name)
    assert entry is not None
    return JobsView(run).status(entry)


def row(run: Path, stage: str = "tokenizer") -> StageStatus:
    (rows,) = run_status(run).values()
    return next(found for found in rows if found.stage == stage)


# --- states and reasons ---------------------------------------------------------------------------

AT = f"{TODAY}T12:04:00"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (queued("12", "PENDING", "Resources"), ["waits", "nodes"]),
        (queued("12", "PENDING", "Priority", start=AT), ["priority", "expected", "12:04"]),
        (queued("12", "PENDING", "BeginTime", start=AT), ["starts at 12:04"]),
        (
            queued("12", "PENDING", "BeginTime", start=AT, restarts=2),
            ["requeued 2 times", "starts again at 12:04"],
        ),
        (queued("12", "PENDING", "JobHeldUser"), ["held", "scontrol release 12"]),
        (queued("12", "PENDING", "QOSMaxCpuPerUserLimit"), ["limit"]),
        (queued("12", "PENDING", "AssocGrpGRES"), ["limit"]),
        (queued("12", "PENDING", "ReqNodeNotAvail, UnavailableNodes:node1"), ["not available"]),
        (queued("12", "RUNNING", nodes="node[1-2]", start=AT), ["on node[1-2]", "since 12:04"]),
        (queued("12", "RUNNING", nodes="node1", start="2026-11-01T09:30:00"), ["2026-11-01 09:30"]),
        (queued("12", "RUNNING", nodes="node1", restarts=1), ["requeued once"]),
        (queued("12", "COMPLETING", nodes="node1"), ["ending"]),
        (queued("12", "PREEMPTED", nodes="node1"), ["resumes"]),
        (queued("12", "REQUEUED"), ["resumes"]),
        (queued("12", "REQUEUE_HOLD"), ["scontrol release 12"]),
        (queued("12", "SUSPENDED", nodes="node1"), ["later"]),
    ],
)
def test_a_job_that_goes_on(run: Path, slurm: FakeSlurm, line: str, words: list[str]) -> None:
    submitted(run, "tokenizer", "12")
    slurm.queue(line)
    found = job(run)
    assert found.ended is False
    state, reason = line.split("|")[2].strip(), line.split("|")[3].strip().replace("None", "")
    assert (found.state, found.reason) == (state, reason)
    assert found.text.startswith(state)
    assert [word for word in words if word not in found.text] == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (accounted("12", "COMPLETED"), ["finished"]),
        (accounted("12", "FAILED", code="3:0"), ["exit code 3"]),
        (accounted("12", "FAILED", code="0:53"), ["signal 53"]),
        (accounted("12", "CANCELLED by 0"), ["canceled by root"]),
        (accounted("12", "CANCELLED by 987654"), ["canceled by 987654"]),
        (accounted("12", "CANCELLED"), ["canceled"]),
        (accounted("12", "TIMEOUT", nodes="node1"), ["time limit"]),
        (accounted("12", "NODE_FAIL", nodes="node1"), ["node failed"]),
        (accounted("12", "OUT_OF_MEMORY"), ["memory"]),
        (accounted("12", "PREEMPTED"), ["priority", "not requeued"]),
        (accounted("12", "BOOT_FAIL"), ["did not start"]),
        (accounted("12", "DEADLINE"), ["deadline"]),
    ],
)
def test_a_job_that_ended(run: Path, slurm: FakeSlurm, line: str, words: list[str]) -> None:
    submitted(run, "tokenizer", "12")
    slurm.accounting(line)
    found = job(run)
    assert found.ended is True
    assert found.runs is False
    assert found.text.startswith(line.split("|")[2].split()[0])
    assert [word for word in words if word not in found.text] == []


def test_why_an_ended_job_once_waited_is_not_told(run: Path, slurm: FakeSlurm) -> None:
    """Accounting keeps the last reason for which a job was pending."""
    submitted(run, "tokenizer", "12")
    slurm.accounting(accounted("12", "FAILED", code="3:0", reason="JobArrayTaskLimit"))
    assert job(run).text == "FAILED: failed, exit code 3"


def test_the_controller_tells_why_a_job_was_not_started(run: Path, slurm: FakeSlurm) -> None:
    submitted(run, "tokenizer", "12")
    slurm.queue(queued("12", "FAILED", "JobLaunchFailure", nodes="node1"))
    assert job(run).ended is True
    assert "log" in job(run).text
    assert not any(call.startswith("sacct") for call in slurm.calls)


def test_what_a_job_waits_for(run: Path, slurm: FakeSlurm) -> None:
    submitted(run, "encoder", "11")
    submitted(run, "refine", "12", depends_on=["11"])
    submitted(run, "tokenizer", "13", depends_on=["11", "12"])
    slurm.queue(
        queued("11", "COMPLETED"),
        queued("12", "RUNNING", nodes="node1"),
        queued("13", "PENDING", "Dependency"),
    )
    assert "waits for refine (job 12)" in job(run).text
    assert "encoder" not in job(run).text


def test_a_job_whose_inputs_are_done_waits_for_none_of_them(run: Path, slurm: FakeSlurm) -> None:
    submitted(run, "refine", "12")
    submitted(run, "tokenizer", "13", depends_on=["12"])
    slurm.queue(queued("12", "COMPLETED"), queued("13", "PENDING", "Dependency"))
    assert "refine" not in job(run).text


@pytest.mark.parametrize(
    "line",
    [
        queued("13", "PENDING", "DependencyNeverSatisfied"),
        queued("13", "CANCELLED", "DependencyNeverSatisfied"),
    ],
)
def test_what_kept_a_job_from_starting(run: Path, slurm: FakeSlurm, line: str) -> None:
    submitted(run, "refine", "12")
    submitted(run, "tokenizer", "13", depends_on=["12"])
    slurm.queue(queued("12", "FAILED", "NonZeroExitCode"), line)
    slurm.accounting(accounted("13", "CANCELLED", "Dependency"))
    assert "refine (job 12) did not succeed" in job(run).text


def test_the_same_from_accounting_alone(run: Path, slurm: FakeSlurm) -> None:
    submitted(run, "refine", "12")
    submitted(run, "tokenizer", "13", depends_on=["12"])
    slurm.accounting(accounted("12", "TIMEOUT"), accounted("13", "CANCELLED", "Dependency"))
    assert "never started: refine (job 12) did not succeed" in job(run).text


def test_the_last_submission_counts(run: Path, slurm: FakeSlurm) -> None:
    submitted(run, "tokenizer", "12")
    submitted(run, "tokenizer", "15")
    slurm.queue(queued("12", "FAILED"), queued("15", "PENDING", "Priority"))
    assert (job(run).id, job(run).state) == ("15", "PENDING")


def test_a_job_of_another_program_with_the_same_id_is_not_ours(run: Path, slurm: FakeSlurm) -> None:
    """Another cluster, or one whose state was lost, uses numbers again."""
    submitted(run, "tokenizer", "12")
    slurm.queue(queued("12", "RUNNING", nodes="node1", name="somebody"))
    slurm.accounting(accounted("12", "RUNNING", nodes="node1", name="somebody"))
    assert (job(run).state, job(run).ended) == ("", True)


def test_a_command_of_pae_that_ended_a_job_is_named(run: Path, slurm: FakeSlurm) -> None:
    submitted(run, "tokenizer", "12")
    slurm.queue(queued("12", "CANCELLED"))
    RunJobs(run).mark_canceled("12")
    assert "pae cancel" in job(run).text
    assert job(run).canceled


def test_restarts_of_a_forgotten_job_are_those_that_it_recorded(
    run: Path, slurm: FakeSlurm
) -> None:
    entry = submitted(run, "tokenizer", "12")
    for restarts in (0, 1, 2):
        start = Start(job="12", restarts=restarts, time="", host="node1", progress=0)
        RunJobs(run).add_start(entry.folder, start)
    RunJobs(run).add_start(
        entry.folder, Start(job="9", restarts=7, time="", host="node1", progress=0)
    )
    assert job(run).restarts == 2


# --- Slurm that does not answer -------------------------------------------------------------------


def test_without_slurm_the_record_is_shown(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(run, "tokenizer", "12")
    record(run, "tokenizer").update(state="stopped", progress={"done": 3, "total": 9})
    monkeypatch.setenv("PATH", str(tmp_path))
    found = row(run)
    assert (found.state, found.progress) == ("stopped", "3/9")
    assert found.job is not None
    assert found.job.ended is None
    assert "squeue is not on PATH" in found.job.text


def test_a_controller_that_is_down(run: Path, slurm: FakeSlurm) -> None:
    submitted(run, "tokenizer", "12")
    slurm.answer(
        "squeue", err="slurm_load_jobs error: Unable to contact slurm controller\n", code=1
    )
    slurm.answer("sacct", err="sacct: error: Problem talking to the database\n", code=1)
    assert "Unable to contact slurm controller" in job(run).text
    assert job(run).ended is None


def test_accounting_alone_does_not_end_a_job_that_may_be_queued_again(
    run: Path, slurm: FakeSlurm
) -> None:
    submitted(run, "tokenizer", "12")
    slurm.answer("squeue", err="slurm_load_jobs error: Unable to contact\n", code=1)
    slurm.accounting(accounted("12", "PREEMPTED"))
    assert job(run).ended is None


def test_a_controller_that_never_answers(
    run: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(run, "tokenizer", "12")
    (slurm.folder / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(slurm_jobs, "ANSWER_SECONDS", 0.2)
    start = time.monotonic()
    assert "did not answer" in job(run).text
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_that_slurm_has_forgotten(run: Path, slurm: FakeSlurm, code: int) -> None:
    submitted(run, "tokenizer", "12")
    if code:
        slurm.answer("squeue", err="slurm_load_jobs error: Invalid job id specified\n", code=code)
    assert job(run).ended is True
    assert "does not remember" in job(run).text
    slurm.answer("sacct", err="Slurm accounting storage is disabled\n", code=1)
    assert job(run).ended is True
    assert "accounting storage is disabled" in job(run).text


@pytest.mark.parametrize("answer", ["", "\n\n", "garbage\n", "12|x\n", "|" * 20 + "\n", "é" * 50])
def test_answers_of_another_form_are_no_jobs(run: Path, slurm: FakeSlurm, answer: str) -> None:
    submitted(run, "tokenizer", "12")
    slurm.answer("squeue", answer)
    slurm.answer("sacct", answer)
    assert job(run).state == ""


def test_a_damaged_list_of_jobs_hides_no_stage(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    submitted(run, "tokenizer", "12")
    RunJobs(run).file.write_text("{")
    record(run, "tokenizer").update(state="done")
    assert row(run).state == "done"
    assert "jobs.json" in caplog.text


def test_slurm_is_asked_once_about_all_jobs(run: Path, slurm: FakeSlurm) -> None:
    for number, stage in enumerate(("encoder", "refine", "tokenizer"), start=11):
        submitted(run, stage, str(number))
    slurm.queue(*(queued(str(number), "PENDING", "Priority") for number in (11, 12, 13)))
    run_status(run)
    assert len(slurm.calls) == 1
    assert "--jobs=11,12,13" in slurm.calls[0]


# --- the stage beside its job ---------------------------------------------------------------------


def working(run: Path, host: str = "node1") -> None:
    """The tokenizer runs in job 12 by its record."""
    entry = submitted(run, "tokenizer", "12")
    when = "2026-11-29T12:00:00+0000"
    start = Start(job="12", restarts=0, time=when, host="node1", progress=0)
    RunJobs(run).add_start(entry.folder, start)
    record(run, "tokenizer").update(
        state="running",
        process={"host": host, "id": 1, "since": "2026-11-29T13:00:01+0100"},
        progress={"done": 300, "total": 900},
        seconds=60.0,
    )


def test_a_stage_runs_while_its_job_does_although_its_lock_is_not_seen(
    run: Path, slurm: FakeSlurm
) -> None:
    working(run)
    slurm.queue(queued("12", "RUNNING", nodes="node1"))
    log = record(run, "tokenizer").path / "metrics.jsonl"
    log.write_text('{"step": 1, "images_per_s": 7}\n{"step": 2, "images_per_s": 52.5}\n{"st')
    found = row(run)
    assert (found.state, found.images_per_s, found.seconds_left) == ("running", 52.5, 120)


@pytest.mark.parametrize(
    "line", ["", queued("12", "NODE_FAIL"), queued("12", "PENDING", "BeginTime", restarts=1)]
)
def test_a_stage_whose_job_is_gone_or_waits_again_is_stopped(
    run: Path, slurm: FakeSlurm, line: str
) -> None:
    working(run)
    slurm.queue(line)
    with FileLock(record(run, "tokenizer").path / ".lock"):  # as a server may keep it
        found = row(run)
    assert (found.state, found.seconds_left, found.process) == ("stopped", None, "")


def test_a_process_outside_of_the_job_is_judged_by_its_lock(run: Path, slurm: FakeSlurm) -> None:
    working(run, host="workstation")
    slurm.queue(queued("12", "FAILED"))
    with FileLock(record(run, "tokenizer").path / ".lock"):
        assert row(run).state == "running"
    assert row(run).state == "stopped"


def test_an_unknown_job_leaves_the_record_as_it_is(run: Path, slurm: FakeSlurm) -> None:
    working(run)
    slurm.answer("squeue", err="down\n", code=1)
    with FileLock(record(run, "tokenizer").path / ".lock"):
        assert row(run).state == "running"
    assert row(run).state == "stopped"


# --- the executors local and debug ----------------------------------------------------------------


def test_a_local_job_is_its_process(run: Path) -> None:
    submitted(run, "tokenizer", "999999999", executor="local", host=platform.node())
    assert (job(run).state, job(run).ended) == ("ENDED", True)


def test_a_local_job_of_another_machine_is_unknown(run: Path) -> None:
    submitted(run, "tokenizer", "1", executor="local", host="elsewhere")
    assert job(run).ended is None
    assert "elsewhere" in job(run).text


def test_debug_has_no_job(run: Path) -> None:
    submitted(run, "tokenizer", "debug-1", executor="debug")
    assert row(run).job is None


def test_a_stage_of_an_edited_recipe_has_the_job_of_the_edited_one(
    run: Path, slurm: FakeSlurm, tiny_recipe: Path
) -> None:
    submitted(run, "generator", "12")
    before = record(run, "generator")
    before.path.mkdir(parents=True)
    before.update(state="done", results={})
    loaded = load_recipe(tiny_recipe, ("generator.train.steps=7",), REGISTRY)
    directory = RunDirectory.at(run)
    stages = planned_stages(loaded, directory.store)
    directory.write(loaded, list(stages.values()), "pae run tiny.yaml --on cluster", starts=True)
    submitted(run, "generator", "13")
    slurm.queue(queued("13", "PENDING", "Resources"))
    (rows,) = run_status(run, Comparison(REGISTRY)).values()
    generator = next(found for found in rows if found.stage == "generator")
    assert generator.state == "stale"
    assert generator.job is not None
    assert generator.job.id == "13"


# --- what is printed ------------------------------------------------------------------------------


def test_status_fits_80_columns_and_json_has_the_same_facts(
    run: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    working(run)
    submitted(run, "generator", "13", depends_on=["12"])
    slurm.queue(
        queued("12", "RUNNING", nodes="node[1-4,7,9-12]", start="2026-11-28T09:30:00", restarts=3),
        queued("13", "PENDING", "Dependency"),
    )
    shown = pae("status", "run").ok()
    for fact in (
        "job 12: RUNNING on node[1-4,7,9-12]",
        "requeued 3 times",
        "about 2 min 00 s left",
    ):
        assert fact in " ".join(shown.out.replace("\n ", "").split())
    assert "waits for tokenizer (job 12)" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    rows = {row["stage"]: row for row in pae("status", "run", "--json").ok().json["runs"]["tiny"]}
    assert rows["tokenizer"]["job"]["nodes"] == "node[1-4,7,9-12]"
    assert rows["tokenizer"]["seconds_left"] == 120
    assert rows["generator"]["job"]["reason"] == "Dependency"
    assert rows["encoder"]["job"] is None


def test_a_job_that_ended_before_its_stage_did_names_its_log(
    run: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    submitted(run, "tokenizer", "12")
    slurm.queue(queued("12", "FAILED", "NonZeroExitCode", nodes="node1"))
    assert "12_0_log.out" not in pae("status", "run").ok().out
    log = RunJobs(run).log("12")
    log.parent.mkdir()
    log.touch()
    assert "run/jobs/12_0_log.out" in pae("status", "run").ok().out
    record(run, "tokenizer").update(state="done")
    assert "12_0_log.out" not in pae("status", "run").ok().out


def test_stages_in_one_job_share_a_line(run: Path, pae: Pae) -> None:
    for stage in ("encoder", "refine", "tokenizer"):
        submitted(run, stage, "999999999", executor="local", host=platform.node())
    lines = pae("status", "run").ok().out.splitlines()
    assert [line for line in lines if "job 999999999" in line] == [
        "encoder, refine, tokenizer: job 999999999: ENDED: its process has ended"
    ]


SWEEP = "\nsweep: {variants: {small: {generator.width: 16}, large: {generator.width: 64}}}\n"


@pytest.fixture
def sweep(tmp_path: Path, tiny_text: str) -> Path:
    """A submitted sweep: a shared tokenizer, an array for the generators, a report."""
    recipe, path = tmp_path / "sweep.yaml", tmp_path / "swept"
    recipe.write_text(tiny_text + SWEEP)
    loaded = load_recipe(recipe, (), REGISTRY)
    members = expand(loaded)
    info = {"name": "tiny", "command": "pae run sweep.yaml", "members": [x.name for x in members]}
    write_description(path, info, loaded, starts=True)
    for index, member in enumerate(members):
        directory = RunDirectory.at(path / "members" / member.name, path / "stages")
        stages = planned_stages(member.loaded, directory.store)
        directory.write(member.loaded, list(stages.values()), "pae run", starts=True)
        if index == 0:
            shared = {"folder": stages["tokenizer"].folder, "member": member.name}
            submitted(path, "tokenizer", "20", **shared)
        own = {"folder": stages["generator"].folder, "member": member.name}
        submitted(path, "generator", f"21_{index}", depends_on=["20"], **own)
        for stage in stages.values():
            if stage.name != "generator":
                directory.stage(stage).update(state="done")
    submitted(path, COMPARISON, "22", depends_on=["20", "21"])
    return path


def test_a_submitted_sweep_has_a_line_per_member(sweep: Path, slurm: FakeSlurm, pae: Pae) -> None:
    slurm.queue(
        queued("20", "COMPLETED"),
        queued("21_0", "RUNNING", nodes="node1"),
        queued("21_1", "PENDING", "JobArrayTaskLimit"),
        queued("22", "PENDING", "Dependency"),
    )
    lines = pae("status", "swept").ok().out.splitlines()
    (small,) = [line for line in lines if line.startswith("small")]
    (large,) = [line for line in lines if line.startswith("large") and "JobArray" not in line]
    assert small.split()[-2:] == ["21_0", "RUNNING"]
    assert large.split()[-2:] == ["21_1", "PENDING"]
    assert any("21_1" in line and "other members" in " ".join(lines) for line in lines)
    assert any(line.startswith("report: job 22") for line in lines)
    assert lines[-1].startswith("2 members")
    assert max(map(len, lines)) <= 80


def test_a_member_of_a_sweep_shows_its_own_jobs(sweep: Path, slurm: FakeSlurm, pae: Pae) -> None:
    slurm.queue(queued("21_0", "RUNNING", nodes="n1"), queued("21_1", "RUNNING", nodes="n2"))
    names = json.loads((sweep / "run.json").read_text())["members"]
    rows = pae("status", f"swept/members/{names[1]}", "--json").ok().json["runs"]
    (found,) = rows.values()
    jobs = {row["stage"]: row["job"]["id"] for row in found if row["job"]}
    assert jobs == {"tokenizer": "20", "generator": "21_1"}
