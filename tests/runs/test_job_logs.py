"""``pae logs``: which log is shown, and how it is followed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from plan_helpers import REGISTRY
from slurm_answers import FakeSlurm, accounted, queued, submitted

from pae_framework.recipe.load import load_recipe
from pae_framework.runs import job_logs
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.jobs import RunJobs
from pae_framework.runs.planned import planned_stages
from pae_framework.testing.pytest import Pae


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    path = tmp_path / "run"
    loaded = load_recipe(tiny_recipe, (), REGISTRY)
    directory = RunDirectory.at(path)
    stages = planned_stages(loaded, directory.store)
    directory.write(loaded, list(stages.values()), "pae run tiny.yaml --on cluster", starts=True)
    return path


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    for name, seconds in {"_POLL": 0.02, "_LOOK": 0.1, "_SETTLE": 0.05}.items():
        monkeypatch.setattr(job_logs, f"{name}_SECONDS", seconds)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def write_log(run: Path, job: str, text: str, rank: int = 0, age: float = 0.0) -> Path:
    file = RunJobs(run).log(job, rank)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    os.utime(file, (time.time() - age, time.time() - age))
    return file


# --- which log ------------------------------------------------------------------------------------


@pytest.fixture
def chain(run: Path, slurm: FakeSlurm) -> Path:
    """The encoder has ended, the tokenizer runs, the generator waits."""
    for stage, job in {"encoder": "11", "tokenizer": "12", "generator": "13"}.items():
        submitted(run, stage, job)
    write_log(run, "11", "first\n", age=9)
    write_log(run, "12", "second\n", age=5)
    slurm.queue(
        queued("11", "COMPLETED"),
        queued("12", "RUNNING", nodes="node1"),
        queued("13", "PENDING", "Priority"),
    )
    return run


def test_the_log_of_the_stage_that_runs(chain: Path, pae: Pae) -> None:
    assert pae("logs", "run").ok().out == "second\n"


def test_the_last_log_if_none_runs(chain: Path, slurm: FakeSlurm, pae: Pae) -> None:
    slurm.queue(queued("11", "COMPLETED"), queued("12", "FAILED"), queued("13", "CANCELLED"))
    assert pae("logs", "run").ok().out == "second\n"


def test_the_log_of_a_stage(chain: Path, pae: Pae) -> None:
    assert pae("logs", "run", "encoder").ok().out == "first\n"


def test_a_job_that_waits_has_no_log_and_says_why(chain: Path, pae: Pae) -> None:
    shown = pae("logs", "run", "generator").ok()
    assert shown.out == ""
    assert "13_0_log.out" in shown.err
    assert "PENDING (Priority)" in shown.err


def test_without_slurm_the_log_is_shown(
    chain: Path, tmp_path: Path, pae: Pae, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pae("logs", "run", "tokenizer").ok().out == "second\n"
    assert pae("logs", "run").ok().out == "second\n"


@pytest.mark.parametrize(
    ("text", "lines", "shown"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc\n", 9, "a\nb\nc\n"),
        ("a\nb\nc", 2, "a\nb\nc\n"),
        ("a\nb\n", 0, ""),
        ("", 5, ""),
        ("one\x1b[2J\n", 5, "one\\x1b[2J\n"),
    ],
)
def test_the_last_lines(chain: Path, pae: Pae, text: str, lines: int, shown: str) -> None:
    write_log(chain, "12", text)
    assert pae("logs", "run", "--lines", str(lines)).ok().out == shown


def test_bytes_that_are_no_text_are_shown_all_the_same(chain: Path, pae: Pae) -> None:
    write_log(chain, "12", "").write_bytes(b"loss \xff\xfe\nnext\n")
    assert pae("logs", "run").ok().out.splitlines()[-1] == "next"


def test_the_log_of_another_process(chain: Path, pae: Pae) -> None:
    write_log(chain, "12", "at the start\n", rank=1)
    assert pae("logs", "run", "--rank", "1").ok().out == "at the start\n"
    (chain / "logs").mkdir()
    (chain / "logs" / "rank1.log").write_text("at work\n")
    assert pae("logs", "run", "--rank", "1").ok().out == "at work\n"
    assert "process 2" in pae("logs", "run", "--rank", "2").fails(2).err


def test_a_run_in_processes_of_this_machine(run: Path, pae: Pae) -> None:
    (run / "logs").mkdir()
    for rank in (0, 1):
        (run / "logs" / f"rank{rank}.log").write_text(f"from {rank}\n")
    assert pae("logs", "run").ok().out == "from 0\n"
    assert pae("logs", "run", "tokenizer", "--rank", "1", "--follow").ok().out == "from 1\n"
    assert "rank0.log, rank1.log" in pae("logs", "run", "--rank", "2").fails(2).err


def test_a_run_in_one_process_has_no_log(run: Path, pae: Pae) -> None:
    assert "terminal" in pae("logs", "run").fails(2).err


@pytest.mark.parametrize("stage", ["tokeniser", "comparison"])
def test_a_stage_that_the_run_does_not_have(chain: Path, pae: Pae, stage: str) -> None:
    failed = pae("logs", "run", stage).fails(2)
    assert stage in failed.err
    assert "tokenizer" in failed.err


@pytest.mark.parametrize("words", [("--rank", "-1"), ("--lines", "-2"), ("a", "b")])
def test_wrong_words(chain: Path, pae: Pae, words: tuple[str, ...]) -> None:
    pae("logs", "run", *words).fails(2)


def test_no_run(pae: Pae) -> None:
    assert "nowhere" in pae("logs", "nowhere").fails(2).err


# --- following ------------------------------------------------------------------------------------


def later(*actions: tuple[float, object]) -> threading.Thread:
    """Do things after so many seconds."""

    def work() -> None:
        for seconds, action in actions:
            time.sleep(seconds)
            action()  # type: ignore[operator]

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def append(file: Path, text: str) -> None:
    with file.open("a") as log:
        log.write(text)


def test_a_log_is_followed_over_a_requeue_until_the_job_ends(
    chain: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    file = RunJobs(chain).log("12")
    thread = later(
        (0.3, lambda: append(file, "third\nfou")),
        (0.1, lambda: append(file, "rth\n")),
        (0.0, lambda: slurm.queue(queued("12", "PENDING", "BeginTime", restarts=1))),
        (0.4, lambda: slurm.queue(queued("12", "RUNNING", nodes="node2", restarts=1))),
        (0.3, lambda: append(file, "again\nlast words")),
        (0.0, lambda: slurm.queue(queued("12", "COMPLETED", restarts=1))),
    )
    shown = pae("logs", "run", "tokenizer", "--follow").ok()
    thread.join()
    assert shown.out.splitlines() == ["second", "third", "fourth", "again", "last words"]
    said = [line for line in shown.err.splitlines() if line.startswith("job 12")]
    assert [line.split()[2].rstrip(",:") for line in said] == [
        "RUNNING",
        "PENDING",
        "RUNNING",
        "COMPLETED",
    ]


def test_a_log_that_does_not_exist_yet_is_waited_for(
    chain: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    thread = later(
        (0.3, lambda: write_log(chain, "13", "begins\n")),
        (0.1, lambda: slurm.queue(queued("13", "COMPLETED"))),
    )
    shown = pae("logs", "run", "generator", "--follow").ok()
    thread.join()
    assert shown.out == "begins\n"
    assert "PENDING (Priority)" in shown.err


def test_a_stage_in_a_job_with_others_ends_before_its_job(
    chain: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    directory = RunDirectory.at(chain)
    directory.stage(directory.plan["tokenizer"]).update(state="done")
    assert pae("logs", "run", "tokenizer", "--follow").ok().out == "second\n"


def test_without_a_stage_the_job_is_followed_to_its_last_stage(
    chain: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    submitted(chain, "latents", "12")
    directory = RunDirectory.at(chain)
    directory.stage(directory.plan["tokenizer"]).update(state="done")
    thread = later(
        (0.3, lambda: append(RunJobs(chain).log("12"), "third\n")),
        (0.1, lambda: slurm.queue(queued("12", "COMPLETED"))),
    )
    shown = pae("logs", "run", "--follow").ok()
    thread.join()
    assert shown.out == "second\nthird\n"


def test_an_earlier_failure_of_a_stage_ends_nothing(
    chain: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    directory = RunDirectory.at(chain)
    directory.stage(directory.plan["tokenizer"]).update(state="failed", error="earlier")
    thread = later(
        (0.3, lambda: append(RunJobs(chain).log("12"), "third\n")),
        (0.1, lambda: slurm.queue(queued("12", "COMPLETED"))),
    )
    shown = pae("logs", "run", "tokenizer", "--follow").ok()
    thread.join()
    assert shown.out == "second\nthird\n"


def test_a_job_that_is_forgotten_while_it_is_followed_has_ended(
    chain: Path, slurm: FakeSlurm, pae: Pae
) -> None:
    slurm.queue()
    slurm.accounting(accounted("12", "TIMEOUT"))
    shown = pae("logs", "run", "tokenizer", "--follow").ok()
    assert shown.out == "second\n"
    assert "TIMEOUT" in shown.err


def test_ctrl_c_ends_following_and_nothing_else(chain: Path, slurm: FakeSlurm) -> None:
    with follower(chain.parent) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "second\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert not any(call.startswith("scancel") for call in slurm.calls)


def follower(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "pae_framework", "logs", "run", "tokenizer", "--follow"]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def test_a_log_that_became_shorter_is_read_from_its_beginning(tmp_path: Path) -> None:
    tail = job_logs.Tail(tmp_path / "log")
    assert read(tail.new_lines()) == []
    tail.path.write_text("one\ntwo\nthr")
    assert read(tail.new_lines()) == ["one", "two"]
    tail.path.write_text("new\n")
    assert read(tail.new_lines()) == ["new"]
    assert tail.unfinished() == ""


def read(lines: Iterator[str]) -> list[str]:
    return list(lines)
