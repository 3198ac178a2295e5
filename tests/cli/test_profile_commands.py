"""`pae profiles`, and `--on` of `pae check` and `pae run`: what they print, and how they exit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.recipe.load import load_recipe
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.testing.pytest import Pae

FILE = """\
cluster:
  partition: gpu
  gpus_per_node: 2
  time: 12:00:00
  stages: {generator: {nodes: 2}}
"""
SITE = "gpu*|up|1-00:00:00|1-infinite|2|64|512000|gpu:2|(null)"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file of profiles; no Slurm on PATH."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    path = tmp_path / "config" / "pae_framework" / "profiles.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILE)
    return path


@pytest.fixture
def sinfo(tmp_path: Path) -> None:
    """A site with one partition."""
    script = tmp_path / "bin" / "sinfo"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho '{SITE}'\n")
    script.chmod(0o755)


# --- pae profiles ---------------------------------------------------------------------------------


def test_profiles_are_listed_with_executor_and_position(pae: Pae) -> None:
    lines = pae("profiles").ok().out.splitlines()
    listed = {
        line.split()[0]: (line, where) for line, where in zip(lines[::2], lines[1::2], strict=True)
    }
    assert listed.keys() == {"local", "debug", "cluster"}
    assert "slurm" in listed["cluster"][0]
    assert listed["cluster"][1].strip() == "config/pae_framework/profiles.yaml:1:1"
    assert listed["debug"][1].strip() == "built in"
    answer = pae("profiles", "--json").ok().json
    assert [profile["name"] for profile in answer["profiles"]] == ["local", "debug", "cluster"]
    assert answer["problems"] == []


def test_a_profile_is_explained_value_by_value(pae: Pae) -> None:
    values = pae("profiles", "cluster", "--json").ok().json["values"]
    found = {entry["key"]: (entry["value"], entry["where"]) for entry in values}
    where = "config/pae_framework/profiles.yaml"
    assert found["gpus_per_node"] == (2, f"{where}:3:18")
    assert found["nodes"] == (1, "default")
    assert found["stages.generator.nodes"] == (2, f"{where}:5:31")
    text = pae("profiles", "cluster").ok().out
    assert all(key in text for key in found)


def test_each_value_is_explained_with_its_default_and_what_sbatch_gets(
    pae: Pae, file: Path
) -> None:
    file.write_text(
        f"{FILE}  memory: all\n  signal_before: 90\n  array_limit: 4\n"
        "  flags: {exclusive: true, reservation: x, hold: null}\n  srun_args: [--mpi=none]\n"
    )
    values = pae("profiles", "cluster", "--json").ok().json["values"]
    rows = {entry["key"]: entry for entry in values}
    assert {key: row["sbatch"] for key, row in rows.items() if row["sbatch"]} == {
        "partition": "--partition=gpu",
        "nodes": "--nodes=1",
        "gpus_per_node": "--gpus-per-node=2",
        "tasks_per_node": "--ntasks-per-node=2",
        "memory": "--mem=0",
        "time": "--time=720",
        "flags": "--exclusive --reservation=x",
        "srun_args": "srun --mpi=none",
        "signal_before": "--signal=USR2@90",
        "array_limit": "--array=0-N%4",
        "stages.generator.nodes": "--nodes=2",
    }
    assert (rows["signal_before"]["value"], rows["signal_before"]["default"]) == (90, 120)
    assert rows["stages.generator.nodes"]["default"] == 1
    assert all(row["meaning"] for row in rows.values())
    local = pae("profiles", "local", "--json").ok().json["values"]
    assert not any(entry["sbatch"] for entry in local)


@pytest.mark.parametrize("width", [60, 80])
def test_an_explanation_fits_a_narrow_terminal(pae: Pae, width: int) -> None:
    """No line needs more than two lines of the terminal."""
    lines = pae("profiles", "cluster").ok().out.splitlines()
    assert all(len(line) <= 2 * width for line in lines[2:])


def test_the_example_is_a_file_of_profiles(pae: Pae, file: Path) -> None:
    file.unlink()
    assert "--example" in pae("profiles").ok().out
    file.write_text(pae("profiles", "--example").ok().out)
    names = [profile["name"] for profile in pae("profiles", "--json").ok().json["profiles"]]
    assert len(names) > 2


def test_an_unknown_profile_names_the_nearest(pae: Pae) -> None:
    assert "'cluster'" in pae("profiles", "clustr").fails(2).err


def test_valid_profiles_are_listed_beside_the_problems_of_others(pae: Pae, file: Path) -> None:
    file.write_text(f"{FILE}broken: {{nodez: 1, time: 1}}\n")
    answer = pae("profiles").fails(2)
    assert "cluster" in answer.out
    assert "profiles.yaml:6:10: broken.nodez" in answer.err
    (problem,) = pae("profiles", "--json").fails(2).json["problems"]
    assert problem["path"] == "broken.nodez"


# --- pae check ------------------------------------------------------------------------------------


def test_check_says_that_the_site_was_not_asked(pae: Pae) -> None:
    answer = pae("check", "quickstart", "--on", "cluster").ok()
    assert answer.out.splitlines()[0] == "quickstart: valid"
    assert "not checked" in answer.out
    assert "not asked" in pae("check", "quickstart", "--on", "local").ok().out


@pytest.mark.usefixtures("sinfo")
def test_check_reports_what_the_site_would_refuse(pae: Pae, file: Path) -> None:
    assert "checked" in pae("check", "quickstart", "--on", "cluster").ok().out
    file.write_text(
        FILE.replace("partition: gpu", "partition: gpus").replace("nodes: 2", "time: 9")
    )
    answer = pae("check", "quickstart", "--on", "cluster").fails(2)
    assert "config/pae_framework/profiles.yaml:2:14: cluster.partition" in answer.err
    plain = pae("check", "quickstart", "--on", "cluster", "--json").fails(2).json
    assert [problem["path"] for problem in plain["refused"]] == ["cluster.partition"]


@pytest.mark.usefixtures("sinfo")
def test_check_uses_the_profile_that_the_recipe_names(pae: Pae) -> None:
    override = "launch={extends: cluster, memory: 900GB}"
    answer = pae("check", "quickstart", override).fails(2)
    assert "command line: launch.memory" in answer.err


def test_check_reports_batches_that_the_processes_cannot_share(pae: Pae) -> None:
    changes = ("tokenizer.train.batch_size=2", "generator.train.batch_size=2")
    answer = pae("check", "quickstart", *changes, "--on", "cluster").fails(2)
    assert "generator.train.batch_size" in answer.err  # 4 processes
    assert "config/pae_framework/profiles.yaml:5:31" in answer.err
    assert "tokenizer.train.batch_size" not in answer.err  # 2 processes


def test_check_warns_of_batches_that_the_processes_share_unevenly(pae: Pae) -> None:
    changes = ("tokenizer.train.batch_size=8", "generator.train.batch_size=10")
    tight = pae("check", "quickstart", *changes, "--on", "cluster", "--json").ok().json["tight"]
    (uneven,) = [problem for problem in tight if "share" in problem["message"]]
    assert uneven["path"] == "cluster.stages.generator.nodes"  # 10 images, 4 processes
    assert uneven["hint"].startswith("2 processes")


def test_stages_that_are_done_in_the_run_are_neither_checked_nor_planned(pae: Pae) -> None:
    changes = ("tokenizer.train.batch_size=1", "generator.train.batch_size=2")
    loaded, store = load_recipe("quickstart", changes), Path("runs/quickstart/stages")
    for name, stage in planned_stages(loaded, store).items():
        if name not in ("generator", "sample", "evaluate", "report"):
            (store / stage.folder).mkdir(parents=True)
            StageRecord(store / stage.folder).update(state="done", results={})
    refused = pae("check", "quickstart", *changes, "--on", "cluster", "--json").fails(2).json
    assert [problem["path"] for problem in refused["refused"]] == ["cluster.stages.generator.nodes"]
    options = ("--on", "cluster", "--dry-run", "--json")
    jobs = pae("run", "quickstart", *changes, *options).ok().json["jobs"]
    assert [job["stage"] for job in jobs] == ["generator", "sample", "evaluate", "report"]
    assert jobs[0]["after"] == []


def test_the_dry_run_of_a_sweep_shows_the_array_and_the_report(pae: Pae) -> None:
    sweep = "sweep={seeds: [0, 1], variants: {a: {}, b: {sample.steps: 7}}}"
    launch = "launch={extends: cluster, array_limit: 2}"
    jobs = pae("run", "quickstart", sweep, launch, "--dry-run", "--json").ok().json["jobs"]
    array, report = jobs[-2:]
    assert (array["stage"], array["jobs"], array["at_once"]) == ("members", 4, 2)
    assert (report["stage"], report["jobs"]) == ("comparison", 1)
    assert "members" in report["after"]
    (local,) = (
        pae("run", "quickstart", sweep, "--on", "local", "--dry-run", "--json").ok().json["jobs"]
    )
    assert (local["jobs"], local["after"]) == (1, [])
    assert {"tokenizer", "comparison"} <= set(local["stages"])


def test_the_dry_run_shows_the_memory_of_each_process(pae: Pae) -> None:
    def memory(*options: str) -> dict[str, int]:
        stages = pae("run", "quickstart", "--dry-run", "--json", *options).ok().json["stages"]
        return {stage["stage"]: stage["memory_bytes"] for stage in stages if stage["memory_bytes"]}

    alone, two, cluster = memory(), memory("--processes", "2"), memory("--on", "cluster")
    assert all(alone[stage] / 2 < two[stage] < alone[stage] for stage in alone)
    assert cluster["tokenizer"] == two["tokenizer"]  # 2 GPUs
    assert cluster["generator"] < two["generator"]  # 2 nodes with 2 GPUs


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_unknown_profile_is_an_error_of_the_command_line(pae: Pae, command: str) -> None:
    err = pae(command, "quickstart", "--on", "clustr").fails(2).err
    assert "command line: --on" in err
    assert "'cluster'" in err


# --- pae run --------------------------------------------------------------------------------------


def test_dry_run_lists_the_jobs_and_what_they_wait_for(pae: Pae) -> None:
    out = pae("run", "quickstart", "--on", "cluster", "--dry-run").ok().out
    jobs = out[out.index("with profile cluster") :].splitlines()[1:]
    generator = next(line.strip() for line in jobs if line.startswith("  generator:"))
    assert "2 nodes" in generator
    assert "12:00:00" in generator
    assert generator.endswith("after latents")
    plain = pae("run", "quickstart", "launch=cluster", "--dry-run", "--json").ok().json
    assert plain["profile"] == "cluster"
    by_stage = {job["stage"]: job for job in plain["jobs"]}
    assert (by_stage["generator"]["processes"], by_stage["tokenizer"]["processes"]) == (4, 2)
    assert by_stage["evaluate"]["after"] == ["extractor", "sample"]


@pytest.mark.parametrize("option", [("--on", "cluster"), ("launch=cluster",)])
def test_without_slurm_a_run_is_refused_before_anything_is_written(
    pae: Pae, tmp_path: Path, option: tuple[str, ...]
) -> None:
    assert "sbatch" in pae("run", "quickstart", *option).fails(2).err
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("sinfo")
def test_run_submits_nothing_that_the_site_would_refuse(
    pae: Pae, tmp_path: Path, file: Path
) -> None:
    for command in ("sbatch", "srun"):
        (tmp_path / "bin" / command).write_text(f"#!/bin/sh\necho $0 >> {tmp_path}/told\n")
        (tmp_path / "bin" / command).chmod(0o755)
    file.write_text(FILE.replace("partition: gpu", "partition: gpus"))
    answer = pae("run", "quickstart", "--on", "cluster").fails(2)
    assert "config/pae_framework/profiles.yaml:2:14: cluster.partition" in answer.err
    assert not (tmp_path / "told").exists()
    assert not (tmp_path / "runs").exists()


def test_on_and_processes_contradict_each_other(pae: Pae) -> None:
    options = ("--on", "cluster", "--processes", "2", "--dry-run")
    assert "--processes" in pae("run", "quickstart", *options).fails(2).err


@pytest.mark.parametrize("options", [("--processes", "1"), ("--smoke",)])
def test_the_command_line_can_keep_a_recipe_on_this_machine(
    pae: Pae, options: tuple[str, ...]
) -> None:
    answer = pae("run", "quickstart", "launch=nowhere", *options, "--dry-run", "--json").ok()
    assert "jobs" not in answer.json
